"""What tests of whole commands share: a process that runs one, folders, networks, and looks at what was written."""

from __future__ import annotations

import getpass
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from google.protobuf.message import Message
from PIL import Image
from torch import Tensor, nn

import onnx_files
import pfpcli
from forked import CAN_FORK, PRUNING, Done, Server
from pfpcli.models.load import load
from pfpcli.records.folders import FILES
from pfpcli.records.runs import Run
from zoo import conv, head

ROOT = Path(__file__).resolve().parents[1]
SAMPLES = ROOT / "samples"
SHARED = ROOT.parent / "shared" / "data"
ENV = {
    **{name: value for name, value in os.environ.items() if name not in ("FORCE_COLOR", "PFP_NO_PROGRESS")},
    "PYTHONPATH": str(ROOT),
    "PYTHONIOENCODING": "utf-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "OMP_NUM_THREADS": "1",
    "TERM": "dumb",
    "NO_COLOR": "1",
    "COLUMNS": "100",
}

#: Settings of a run where it does not matter which channels go.
QUICK: dict[str, Any] = {"criterion": "l2", "allocate": "uniform", "recover": ()}

#: CIFAR's residual networks: shortcuts are strided slices with padded channels. `tiny` takes images of any size.
NETS = """
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    def __init__(self, i, o, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(i, o, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(o)
        self.conv2 = nn.Conv2d(o, o, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(o)
        self.stride, self.padding = stride, (o - i) // 2

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.padding:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(x + y)


class ResNet(nn.Module):
    def __init__(self, blocks, widths, classes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.stages = len(widths)
        for stage, width in enumerate(widths):
            first = Block(widths[max(stage - 1, 0)], width, 2 if stage else 1)
            others = [Block(width, width, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *others))
        self.linear = nn.Linear(widths[-1], classes)

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.linear(F.avg_pool2d(x, x.shape[-1]).flatten(1))


def tiny():
    return ResNet(1, (8, 16), 5)


def resnet20():
    return ResNet(3, (16, 32, 64), 10)
"""
ARCH = "cifar_resnets"


_SERVER = Server(ENV, PRUNING)


def pfp(*args: str, cwd: Path, **env: str) -> Done:
    """Run the command as a process that has imported what commands import."""
    return _SERVER.run(*args, cwd=cwd, **env) if CAN_FORK else fresh(*args, cwd=cwd, **env)


def fresh(*args: str, cwd: Path, **env: str) -> Done:
    """Run the command as a process that imports everything anew."""
    done = subprocess.run(
        [sys.executable, "-m", "pfpcli", *args],
        cwd=cwd,
        env=ENV | env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def compress(model: Path, calib: Path, out: Path, **settings: Any) -> Run:
    return pfpcli.compress(model, calib, out=out, threads=1, **settings).record


def draw(folder: Path, count: int, side: int = 8, mode: str = "RGB", seed: int = 0) -> Path:
    """Fill a folder with images of noise."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    shape = {"L": (side, side), "RGB": (side, side, 3), "RGBA": (side, side, 4)}[mode]
    for number in range(count):
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(folder / f"{number:02}.png")
    return folder


def sample_images(folder: Path, count: int) -> Path:
    """Fill a folder with the first images of each class of the sample network."""
    for place in sorted((SAMPLES / "images").iterdir()):
        (folder / place.name).mkdir(parents=True)
        for file in sorted(place.iterdir())[:count]:
            shutil.copy(file, folder / place.name)
    return folder


def plain(channels: int = 3) -> nn.Module:
    """A small network of torch.nn classes with batch norms that do something."""
    torch.manual_seed(0)
    module = nn.Sequential(conv(channels, 24), conv(24, 32), nn.MaxPool2d(2), conv(32, 16), head(16)).eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            for tensor in (part.weight, part.bias, part.running_mean, part.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return module


def plain_file(folder: Path) -> Path:
    """Write the network as an ONNX file, which is cut in its own graph: torch exports nothing, so a run is quick."""
    return onnx_files.write(plain(), torch.randn(2, 3, 8, 8), folder / "model.onnx")


def sample_file(folder: Path) -> Path:
    """Write the sample network as an ONNX file, for runs that are about neither its kind nor its other files."""
    return onnx_files.write(load(SAMPLES / "model.pt").module, torch.randn(1, 3, 32, 32), folder / "model.onnx")


def hashes(folder: Path) -> dict[str, str]:
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.iterdir()}


def tensors(run: Path) -> dict[str, Any]:
    """What the plan of a run keeps of every tensor."""
    return json.loads((run / FILES["plan"]).read_text(encoding="utf-8"))["tensors"]


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).abs().max() / expected.abs().max())


def run_onnx(file: Path, x: Tensor) -> Tensor:
    session = onnxruntime.InferenceSession(file)
    return torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


def messages(message: Message) -> Iterator[Message]:
    """A protobuf message and all messages in it."""
    yield message
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in [value] if isinstance(value, Message) else value:
                yield from messages(inner)


def pieces(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file of a run, and every member of those that are archives."""
    for file in sorted(folder.iterdir()):
        content = file.read_bytes()
        yield file.name, content
        if content.startswith(b"PK"):
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                yield from ((f"{file.name}/{name}", archive.read(name)) for name in archive.namelist())


def leaks(run: Path, folder: Path) -> list[str]:
    """What the files of a run tell about the machine that made them; `folder` is where the user's files were."""
    user = getpass.getuser()
    secrets = [str(folder), str(ROOT), str(Path.home()), "site-packages", "stack_trace", '.py"', '.py\\"']
    secrets += [user] if len(user) > 4 else []
    return [f"{name}: {secret}" for name, data in pieces(run) for secret in secrets if secret.encode() in data]

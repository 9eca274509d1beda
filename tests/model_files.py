"""Files of one small network in every format that pfp reads, and files that were tampered with."""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from pfpcli.errors import InputError
from pfpcli.models.load import load


def plain_net(classes: int = 5) -> nn.Sequential:
    """A network of nothing but torch's own layers, with batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 8, 3, padding=1),
            norm=nn.BatchNorm2d(8),
            act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            linear=nn.Linear(8, classes),
        )
    )
    net(torch.randn(4, 3, 8, 8) * 3 + 1)
    return net


def own_net(folder: Path) -> nn.Module:
    """The user's Net from `nets`, also saved as model.pt; afterwards its module has to be found anew."""
    sys.path.insert(0, str(folder))
    try:
        import nets

        net = nets.Net().eval()
        torch.save(net, folder / "model.pt")
        return net
    finally:
        sys.path.remove(str(folder))
        del sys.modules["nets"]


def image() -> Tensor:
    """float[2, 3, 8, 8]."""
    torch.manual_seed(1)
    return torch.randn(2, 3, 8, 8)


def write_script(net: nn.Module, path: Path) -> None:
    """TorchScript, traced."""
    torch.jit.save(torch.jit.trace(net.eval(), image()), path)


def write_program(net: nn.Module, path: Path) -> None:
    """A .pt2 archive with a free batch, whatever the suffix."""
    with path.open("wb") as file:
        torch.export.save(torch.export.export(net.eval(), (image(),), dynamic_shapes=({0: Dim.AUTO},)), file)


def write_legacy(content: Any, path: Path) -> None:
    """The format of torch before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_onnx(path: Path) -> None:
    """ir_version 10, producer "pytorch", and a graph that is named g."""
    path.write_bytes(b"\x08\x0a\x12\x07pytorch\x3a\x03\x12\x01g")


def write_safetensors(path: Path) -> None:
    """One tensor of one number."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, separators=(",", ":")).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


class Sample(NamedTuple):
    """One way to keep `plain_net` in a file."""

    loader: str
    kind: str
    write: Callable[[nn.Module, Path], None]


SAMPLES = {
    "module": Sample("pickle", "module", torch.save),
    "module in a checkpoint": Sample("pickle", "module", lambda net, path: torch.save({"model": net}, path)),
    "state dict": Sample("pickle", "state_dict", lambda net, path: torch.save(net.state_dict(), path)),
    "legacy state dict": Sample("pickle", "state_dict", lambda net, path: write_legacy(net.state_dict(), path)),
    "checkpoint": Sample(
        "pickle",
        "state_dict",
        lambda net, path: torch.save(
            {
                "epoch": 3,
                "best": np.float64(0.5),
                "args": argparse.Namespace(lr=0.1),
                "optimizer": {"state": {}, "param_groups": []},
                "state_dict": {f"module._orig_mod.{name}": value for name, value in net.state_dict().items()},
            },
            path,
        ),
    ),
    "only state dict in a checkpoint": Sample(
        "pickle", "state_dict", lambda net, path: torch.save({"epoch": 3, "generator": net.state_dict()}, path)
    ),
    "torchscript": Sample("torchscript", "torchscript", write_script),
    "pt2": Sample("pt2", "pt2", write_program),
}


def refusal(path: Path, **options: Any) -> InputError:
    """The error that loading `path` ends in, which names the file and no folder."""
    with pytest.raises(InputError) as caught:
        load(path, **options)
    assert str(path.parent) not in caught.value.message + caught.value.hint
    return caught.value


def renamed_weight(name: str, content: bytes) -> bytes:
    """Let an exported program point to a member that is not there."""
    return content.replace(b'"weight_1"', b'"weight_99"')


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> None:
    """The same zip archive with other contents."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
        for name, content in added.items():
            archive.writestr(f"{root}/{name.replace('__', '/')}", content)

"""Does this commit write the same networks as another one, bit for bit? For changes that should change nothing.

    python benchmarks/unchanged.py COMMIT [FOLDER]

Both commits run the commands below, without a cache, on the sample network and, where they are there, on the networks
of `../shared/data/models`. The tensors of each model.pt2 and the initializers of each model.onnx are compared. FOLDER
keeps the runs; runs of COMMIT that are there already are not made again.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import onnx
import torch
from onnx import numpy_helper

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared/data"
SAMPLE = "{root}/samples/model.pt --calib {root}/samples/images"
CIFAR = "--calib {shared}/cifar10/train --mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616 --samples 128"

#: Name of a run -> the command that makes it.
COMMANDS = {
    "sample": f"compress {SAMPLE} --keep 0.4",
    "sample-macs-l2": f"compress {SAMPLE} --keep 0.5 --keep-of macs --criterion l2 --allocate uniform",
    "sample-obs": f"compress {SAMPLE} --keep 0.5 --criterion obs --allocate error --recover mean,bn",
    "sample-rand": f"compress {SAMPLE} --keep 0.6 --criterion pfp-rand --allocate pfp --recover none",
    "sample-mixed": f"compress {SAMPLE} --keep 0.6 --criterion pfp-mixed --recover bn",
    "sample-steps": f"compress {SAMPLE} --keep 0.4 --steps 2 --criterion pfp-rand",
    "sample-epsilon": f"compress {SAMPLE} --epsilon 0.5",
    "sample-taylor": f"compress {SAMPLE} --keep 0.7 --criterion taylor --freeze 7.0 --multiple-of 4",
    "sample-distill": f"compress {SAMPLE} --keep 0.3 --recover lsq,distill --epochs 1",
    "sample-sparse": f"sparsify {SAMPLE} --keep 0.3 --cut-dead",
    "sample-hybrid": f"sparsify {SAMPLE} --keep 0.3 --criterion sipp-hybrid",
    "resnet20-onnx": f"compress {{shared}}/models/resnet20.onnx {CIFAR} --keep 0.5 --keep-of macs",
    "resnet20-pt2": f"compress {{shared}}/models/resnet20.pt2 {CIFAR} --keep 0.5 --criterion l1",
    "resnet20-script": f"compress {{shared}}/models/resnet20_torchscript.pt {CIFAR} --keep 0.4 --criterion fpgm",
    "resnet56-onnx": f"compress {{shared}}/models/resnet56.onnx {CIFAR} --keep 0.5 --allocate uniform",
    "resnet56-pt2": f"compress {{shared}}/models/resnet56.pt2 {CIFAR} --keep 0.4 --criterion l2 --allocate uniform",
}


def run(code: Path, name: str, folder: Path) -> bool:
    """Run a command with the code of a folder; False if its input is not there."""
    command = COMMANDS[name].format(root=ROOT, shared=SHARED)
    if str(SHARED) in command and not SHARED.is_dir():
        return False
    if not (folder / name / "run.json").exists():
        argv = [sys.executable, "-m", "pfpcli", *shlex.split(command), "--out", str(folder / name), "--quiet"]
        with tempfile.TemporaryDirectory() as cache:
            environment = {**os.environ, "PFP_CACHE": cache, "PYTHONPATH": str(code)}
            done = subprocess.run(argv, cwd=code, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{name}: exit code {done.returncode}\n{done.stderr}")
    return True


def tensors(run: Path) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of all tensors that a run wrote."""
    program = torch.export.load(run / "model.pt2")
    for name, tensor in {**program.state_dict, **program.constants}.items():
        yield f"model.pt2: {name}", bytes(str(tuple(tensor.shape)), "ascii") + tensor.detach().numpy().tobytes()
    for each in onnx.load(run / "model.onnx").graph.initializer:
        array = numpy_helper.to_array(each)
        yield f"model.onnx: {each.name}", bytes(str(array.shape), "ascii") + array.tobytes()


def main() -> None:
    """Compare this commit with another one."""
    commit = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(sys.argv[2] if len(sys.argv) > 2 else scratch).resolve()
        other = Path(scratch) / "code"
        other.mkdir()
        archive = subprocess.run(["git", "archive", commit], cwd=ROOT, check=True, capture_output=True).stdout
        subprocess.run(["tar", "-x", "-C", str(other)], input=archive, check=True)
        changed = 0
        for name in COMMANDS:
            if not run(other, name, folder / commit):
                print(f"{name:<16}  not run: its input is not there")
                continue
            run(ROOT, name, folder / "now")
            before, after = dict(tensors(folder / commit / name)), dict(tensors(folder / "now" / name))
            differing = [key for key in before.keys() | after.keys() if before.get(key) != after.get(key)]
            changed += bool(differing)
            print(f"{name:<16}  {len(after)} tensors, {len(differing)} differ {' '.join(sorted(differing)[:3])}")
    sys.exit(bool(changed))


if __name__ == "__main__":
    main()

"""Attacks: mutated files of every kind that pfp reads. What comes of each is success or one error that pfp means.

    python tests/attack/attack.py [--cases N] [--first SEED]

Prints how many cases ended how, by the kind of file; ends with 1 if one of them ended otherwise, hung or ended the
process. Each batch of cases has a process of its own with a limit on its memory, and a time limit for each case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
#: Cases of one process, seconds of one case, and bytes that a process may have.
BATCH, PATIENCE, MEMORY = 100, 60, 16 << 30


def samples(folder: Path) -> dict[str, Path]:
    """Write one sound file of each kind; returns kind -> file."""
    import numpy as np
    import onnx
    import torch
    from onnx import helper, numpy_helper
    from PIL import Image
    from torch import nn

    import runs

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten())
    net.append(nn.Linear(64, 5)).eval()
    image = torch.randn(2, 3, 8, 8)
    found = {name: folder / name for name in ("module.pt", "state.pt", "script.pt", "program.pt2", "net.onnx")}
    torch.save(net, found["module.pt"])
    torch.save({"epoch": 3, "model": net}, found["state.pt"])
    torch.jit.save(torch.jit.script(net), found["script.pt"])
    torch.export.save(torch.export.export(net, (image,)), found["program.pt2"])
    weight = lambda *shape: np.asarray(torch.randn(*shape) / 5)  # noqa: E731
    constants = {"w": weight(4, 3, 3, 3), "b": weight(4), "v": weight(5, 4), "axes": np.array([2, 3]),
                 "sizes": np.array([1, 1, 2, 2], np.float32), "shape": np.array([0, -1]), "one": np.array([1]),
                 "two": np.array([2])}  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]),
        node("Resize", ["r", "", "sizes"], ["up"]), node("Shape", ["up"], ["s"]),
        node("Slice", ["s", "one", "two"], ["t"]),
        node("MaxPool", ["up"], ["p"], kernel_shape=[2, 2], strides=[2, 2]), node("Split", ["p"], ["e", "f"], axis=1),
        node("Concat", ["e", "f"], ["g"], axis=1), node("ReduceMean", ["g"], ["m"], axes=[2, 3], keepdims=0),
        node("Reshape", ["m", "shape"], ["q"]), node("Gemm", ["q", "v"], ["y"], transB=1),
        node("ConstantOfShape", ["t"], ["z"]), node("ReduceSum", ["z"], ["n"], keepdims=0),
        node("Add", ["y", "n"], ["o"]),
    ]  # fmt: skip
    graph = helper.make_graph(
        nodes, "net", [helper.make_tensor_value_info("x", 1, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("o", 1, None)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )  # fmt: skip
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), found["net.onnx"])
    found |= {name: folder / name for name in ("run.json", "image.png", "images.npz")}
    found["run.json"].write_text(runs.run().json(), encoding="utf-8")
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(found["image.png"])
    np.savez(found["images.npz"], x=np.zeros((3, 3, 8, 8), np.float32), y=np.arange(3))
    return found


def attack(name: str, file: Path) -> None:
    """Do with a file what a command does with it first."""
    import pfpcli
    from pfpcli.cli.main import run
    from pfpcli.errors import InputError
    from pfpcli.images.decode import batches
    from pfpcli.images.folder import open_folder
    from pfpcli.images.preprocess import Preprocess

    if name == "run.json":
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            code = run(["report", str(file.parent), "--all"])
        if "bug in pfp" in said.getvalue():
            raise RuntimeError(said.getvalue())
        if code:
            raise InputError(said.getvalue().strip().partition("\n")[0])
    elif name in ("image.png", "images.npz"):
        images = open_folder(file.parent, (3, 8, 8))
        plain = Preprocess("none", 1.0)
        list(batches(images, range(len(images)), (3, 8, 8), plain, 2, True))
    else:
        pfpcli.inspect(file, input_size=None if name == "net.onnx" else (3, 8, 8))


def outcome(name: str, content: bytes, folder: Path) -> str:
    """Attack with a mutated file; returns "works", "refused", or what went wrong."""
    from pfpcli.errors import PfpError

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = folder / name
    file.write_bytes(content)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            attack(name, file)
    except PfpError as error:
        return "refused" if "\n" not in error.message and "bug in pfp" not in error.hint else f"says {error.message!r}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]} ({Path(last.filename).name}:{last.lineno})"
    finally:
        signal.alarm(0)
        if (folder / "hacked").exists() or Path("hacked").exists():
            raise SystemExit("code of a file ran")
    return "works"


def batch(first: int, cases: int) -> None:
    """Run cases, and print each outcome as a line of JSON."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from mutations import mutate

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        contents = {name: file.read_bytes() for name, file in samples(Path(made)).items()}
        names = list(contents)
        for seed in range(first, first + cases):
            name = random.Random(seed).choice([*names, *["net.onnx"] * 3])
            print(json.dumps([seed, name]), flush=True)
            kind = "pt" if name == "script.pt" else name.rpartition(".")[2]
            print(json.dumps(outcome(name, mutate(contents[name], kind, seed), Path(scratch) / "case")), flush=True)


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {PATIENCE} s")


def results(first: int, cases: int) -> Iterator[tuple[int, str, str]]:
    """Yield (seed, kind of file, outcome) of all cases, in processes of `BATCH` cases each."""
    while cases > 0:
        count = min(BATCH, cases)
        command = [sys.executable, __file__, "--batch", "--first", str(first), "--cases", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        lines = [json.loads(line) for line in done.stdout.splitlines()]
        yield from ((seed, name, found) for (seed, name), found in zip(lines[::2], lines[1::2], strict=False))
        if done.returncode:
            assert lines, "no case was begun"
            seed, name = lines[-1] if len(lines) % 2 else lines[-2]
            yield seed, name, f"the process ended with {done.returncode}"
            count = seed + 1 - first
        first, cases = first + count, cases - count


def main(arguments: list[str] | None = None, report: Callable[[str], Any] = print) -> int:
    """Attack, and report the counts; returns 1 if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--batch", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.batch:
        batch(chosen.first, chosen.cases)
        return 0
    counts: dict[str, Counter[str]] = {}
    wrong = []
    for seed, name, found in results(chosen.first, chosen.cases):
        kind = found if found in ("works", "refused") else "wrong"
        counts.setdefault(name, Counter())[kind] += 1
        if kind == "wrong":
            wrong.append(f"seed {seed}, {name}: {found}")
            report(wrong[-1])
    for name, count in sorted(counts.items()):
        parts = (f"{count[kind]:5} {kind}" for kind in ("refused", "works", "wrong"))
        report(f"{name:<12} {sum(count.values()):5} cases: {', '.join(parts)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

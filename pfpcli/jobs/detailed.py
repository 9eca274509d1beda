"""Detailed: scores and curves as plain values for the details of a run."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.groups import Group
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Plan
from pfpcli.records.details import GroupCurve, GroupScores
from pfpcli.scoring.scores import Scores

#: Digits of a recorded score or loss: a drawing shows no more.
_DIGITS = 4
#: A loss that is not finite is recorded as this.
_LARGEST = 1e12


def group_scores(plan: Plan, scores: Scores) -> list[GroupScores]:
    """The scores of each group that could lose units, and which units the plan drops."""
    return [
        GroupScores(group.name, _rounded(scores.of(group)), np.flatnonzero(~plan.alive[group.units]).tolist())
        for group in _scored(plan, scores)
    ]


def group_curves(plan: Plan, scores: Scores, curves: list[Curve]) -> list[GroupCurve]:
    """The curves with the names of their groups.

    Args:
        plan: of the groups.
        scores: their scores.
        curves: one for each group whose units all have a score, in their order; or none at all.
    """
    if not curves:
        return []
    return [
        GroupCurve(
            group.name,
            curve.positions,
            curve.kept.tolist(),
            {name: _rounded(losses) for name, losses in curve.losses.items()},
        )
        for group, curve in zip(_scored(plan, scores), curves, strict=True)
    ]


def _scored(plan: Plan, scores: Scores) -> list[Group]:
    """The groups that could lose units."""
    return [group for group in plan.groups.prunable if not np.isnan(scores.of(group)).any()]


def _rounded(values: NDArray[np.float64]) -> list[float]:
    finite: Iterable[float] = np.nan_to_num(values, nan=_LARGEST, posinf=_LARGEST, neginf=-_LARGEST).tolist()
    return [float(f"{value:.{_DIGITS}g}") for value in finite]

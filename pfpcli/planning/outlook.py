"""Outlook: how much to keep, so that the network is expected to lose a fraction of what a plan has lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from pfpcli.channels.groups import Groups
from pfpcli.planning.allocations import TRIED
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import Planner
from pfpcli.scoring.scores import Scores

#: The keep ratios that are considered are multiples of 1 / STEPS.
STEPS = 20


def keep_for(share: float, groups: Groups, scores: Scores, budget: Budget, curves: Sequence[Curve]) -> float | None:
    """Return the smallest keep ratio whose expected loss is a share of that of the budget; None if there is none.

    The expected loss is the sum of the distances of the curves. It leaves out what the groups lose together, but not
    much of the ratio of two losses.

    Args:
        share: of the loss, 0 to 1.
        groups: the groups of the network.
        scores: a score for each unit.
        budget: how much was kept.
        curves: one for each of `choices.orders`.
    """
    if not curves or budget.epsilon is not None:
        return None

    def loss(keep: float) -> float:
        planner = Planner(groups, scores, replace(budget, keep=keep), curves=curves)
        return planner.expected_loss(planner.by(TRIED[0]))

    most = share * loss(budget.keep)
    wider = (n / STEPS for n in range(1, STEPS) if n / STEPS > budget.keep + 1e-9)
    return next((keep for keep in wider if loss(keep) <= most), None)

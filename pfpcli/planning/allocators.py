"""Allocators: how many positions each group keeps, as a function of one number.

`allocations.ALLOCATIONS` names them. An allocator is given the choices and the evidence and returns `Counts`: the
larger its argument (the level), the fewer positions each group keeps. `search` finds the level that meets a budget.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pfpcli.planning.allocations import ALLOCATIONS
from pfpcli.planning.choices import Choice
from pfpcli.planning.curves import Curve
from pfpcli.registry import resolve
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import Scores

#: The smallest fraction that groups inside of blocks keep while others lose nothing.
LEAST_INSIDE = 1 / 8
#: The loss of a curve is multiplied with (layers that read the group) to the power of this. A curve is measured with
#: one group cut and each reading layer refitted by itself. Where all groups are cut, later layers compensate much of
#: the loss inside of a branch, and little of the loss in channels that all of them read.
SPREAD = 0.5


@dataclass(frozen=True)
class Evidence:
    """What an allocator can use.

    Attributes:
        scores: a score for each unit.
        delta: probability with which an error bound may fail.
        curves: the curve of each choice; empty where none were measured.
        prices: what one position of each choice costs, near the number of positions it keeps now.
    """

    scores: Scores
    delta: float
    curves: Sequence[Curve] = ()
    prices: Sequence[float] = ()


#: level -> the number of positions each choice keeps.
Counts = Callable[[float], list[int]]
Allocator = Callable[[Sequence[Choice], Evidence], Counts]


def allocator(name: str) -> Allocator:
    """Return an allocator by its name in `ALLOCATIONS`."""
    function: Allocator = resolve("pfpcli.planning", ALLOCATIONS[name].function)
    return function


def shared_error(choices: Sequence[Choice], evidence: Evidence) -> Counts:
    """Give every layer the same relative error, the level: each keeps the channels that `pfp.kept_count` asks for."""
    log = evidence.scores.log(evidence.delta)
    logs = [float(log[choice.group.units].max()) for choice in choices]
    return lambda epsilon: [
        c.rounded(pfp.kept_count(c.scores, epsilon, log)) for c, log in zip(choices, logs, strict=True)
    ]


def uniform(choices: Sequence[Choice], evidence: Evidence) -> Counts:
    """Let every group keep the same fraction, 1 / (1 + level)."""
    return lambda level: [c.rounded(math.ceil(len(c.order) / (1 + level) - 1e-9)) for c in choices]


def uniform_inside(choices: Sequence[Choice], evidence: Evidence) -> Counts:
    """Let every group inside of residual blocks keep the same fraction, 1 / (1 + level), and all others everything.

    Where that is not enough, the groups inside keep `LEAST_INSIDE`, and the others the same fraction.
    """

    def counts(level: float) -> list[int]:
        keep = 1 / (1 + level)
        inside, outside = max(keep, LEAST_INSIDE), min(1.0, keep / LEAST_INSIDE)
        return [c.rounded(math.ceil(len(c.order) * (inside if c.is_inside else outside) - 1e-9)) for c in choices]

    return counts


def least_distance(choices: Sequence[Choice], evidence: Evidence) -> Counts:
    """Minimise the sum of the distances of the curves, for their cost."""
    return _least_loss(choices, evidence, "distance")


def least_divergence(choices: Sequence[Choice], evidence: Evidence) -> Counts:
    """Minimise the sum of the divergences of the curves, for their cost."""
    return _least_loss(choices, evidence, "divergence")


def least_error(choices: Sequence[Choice], evidence: Evidence) -> Counts:
    """Minimise the sum of the layer errors of the curves, for their cost."""
    return _least_loss(choices, evidence, "error")


def _least_loss(choices: Sequence[Choice], evidence: Evidence, of: str) -> Counts:
    """Let each group minimise loss + level * cost over the widths that it may have, the loss from its curve.

    Rounding the best of all widths up instead would give narrow groups more than they are worth, at the expense of wide
    ones: a step is a larger part of a narrow group.
    """
    spread = [max(1, len(choice.group.readers)) ** SPREAD for choice in choices]
    losses = [curve.at_every_width(of) * by for curve, by in zip(evidence.curves, spread, strict=True)]
    costs = [price * np.arange(len(loss)) for price, loss in zip(evidence.prices, losses, strict=True)]
    widths = [choice.widths for choice in choices]
    triples = [(at, loss[at], cost[at]) for at, loss, cost in zip(widths, losses, costs, strict=True)]
    return lambda level: [int(at[np.argmin(loss + level * cost)]) for at, loss, cost in triples]

"""Choices: for each group that can lose units, the order in which they are dropped and how many have to stay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Group, Groups
from pfpcli.channels.residual_blocks import inside
from pfpcli.planning.plan import Budget
from pfpcli.scoring.scores import Scores

#: The largest multiples of channels that are tried, the first one first, where the budget asks for none: in networks
#: whose widest group has `LARGE` channels, and in smaller ones.
_MULTIPLES, _SMALLER = (8, 4, 1), (4, 1)
LARGE = 128
#: Groups from so many channels on keep multiples of 8, and from so many on multiples of 4.
_WIDE, _NARROW = 64, 16


@dataclass(frozen=True)
class Choice:
    """A group that can lose units, with its positions sorted from the first to keep to the first to drop.

    A position holds one unit of every part, and its units are dropped together.

    Attributes:
        group: the group.
        order: int64[positions, parts], the units in the order of the positions.
        scores: float64[positions], the largest score of the units at a position.
        protected: n; the first n positions always stay, so that no tensor loses all channels of a dimension.
        least: the fewest positions that may stay.
        step: kept positions are a multiple of this, or all of them.
        is_inside: whether its channels are inside of a residual block.
    """

    group: Group
    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    protected: int
    least: int
    step: int
    is_inside: bool = False

    @cached_property
    def widths(self) -> NDArray[np.int64]:
        """The numbers of positions that may be kept: int64[w], ascending."""
        return np.unique([self.rounded(count) for count in range(len(self.order) + 1)])

    def rounded(self, count: int) -> int:
        """Round a number of kept positions up to one that is allowed."""
        count = max(count, self.least)
        return min(len(self.order), math.ceil(count / self.step) * self.step)

    def nearest(self, count: float) -> int:
        """Return the number of kept positions that is allowed and nearest to some number."""
        widths = self.widths
        return int(widths[np.argmin(np.abs(widths - count))])


def find_choices(
    groups: Groups, scores: Scores, predictor: Predictor, budget: Budget, most: int = _MULTIPLES[0]
) -> list[Choice]:
    """Return the choices of a network, one for each prunable group whose units all have a score.

    Args:
        groups: the groups of the network.
        scores: a score for each unit.
        predictor: of the same groups.
        budget: its `multiple_of`, `min_channels` and `min_part` limit what a group may keep.
        most: the largest multiple where the budget asks for none.
    """
    scored = [group for group in groups.prunable if not np.isnan(scores.of(group)).any()]
    protected, inner = _protected(scored, scores, predictor), inside(groups.labelled, groups.root)
    choices = []
    for group in scored:
        must_stay = np.isin(group.rows, protected)
        # protected units first, then by score; units with equal scores by their index
        ranks = np.lexsort((-scores.unit[group.rows], ~must_stay), axis=1)
        order = np.take_along_axis(group.rows, ranks, 1).T
        multiple = budget.multiple_of or min(most, natural_multiple(group.size))
        step = multiple // math.gcd(multiple, group.width)
        most_protected = int(must_stay.sum(1).max())
        least = max(1, most_protected, math.ceil(budget.min_channels / group.width))
        if len(group.rows) > 1:
            least = max(least, min(budget.min_part, group.positions))
        is_inside = bool(inner[group.units].all())
        choices.append(Choice(group, order, scores.unit[order].max(1), most_protected, least, step, is_inside))
    return choices


def natural_multiple(channels: int) -> int:
    """Return the multiple of channels that a runtime fills its registers with: 8, less for narrow groups.

    onnxruntime keeps tensors in blocks of 8 channels (16 with AVX-512), takes layers into that layout whose channels
    are a multiple of 4, and pools and joins in it what is a multiple of the block.

    Args:
        channels: of the group in the original.
    """
    return 8 if channels >= _WIDE else 4 if channels >= _NARROW else 1


def multiples(groups: Groups, budget: Budget) -> tuple[int, ...]:
    """Return the largest multiples that are tried until one meets the budget.

    In a small network, a step of 8 loses more than it gains, unless latency is what counts.
    """
    if budget.multiple_of is not None:
        return (budget.multiple_of,)
    return _SMALLER if is_small(groups) and budget.of != "latency" else _MULTIPLES


def is_small(groups: Groups) -> bool:
    """Whether no group that can lose units has `LARGE` channels."""
    return all(group.size < LARGE for group in groups.prunable)


def has_multiples(groups: Groups) -> bool:
    """Whether some group keeps a multiple of channels by default."""
    return any(natural_multiple(group.size) > 1 for group in groups.prunable)


def orders(groups: Groups, scores: Scores, budget: Budget) -> list[tuple[Group, NDArray[np.int64]]]:
    """Return each group that can lose units with its units, sorted from the first to keep to the first to drop.

    Returns:
        (group, int64[positions, parts]) each.
    """
    return [(choice.group, choice.order) for choice in find_choices(groups, scores, Predictor(groups), budget)]


def alive_labels(groups: Groups, choices: Sequence[Choice], counts: Sequence[int]) -> NDArray[np.bool_]:
    """Return the labels that stay where each group keeps its first positions: bool[labels].

    Args:
        groups: the groups of the network.
        choices: the groups that can lose units.
        counts: the number of positions that each choice keeps.
    """
    dropped = [choice.order[count:].reshape(-1) for choice, count in zip(choices, counts, strict=True)]
    return groups.alive(np.concatenate(dropped))


def _protected(scored: Sequence[Group], scores: Scores, predictor: Predictor) -> NDArray[np.int64]:
    """Return units that stay so that no dimension of any tensor loses all its channels: the best of each dimension."""
    can_go = np.zeros(len(scores.unit), dtype=bool)
    for group in scored:
        can_go[group.units] = True
    protected: set[int] = set()
    for vector in sorted(predictor.vectors, key=np.size):
        units = np.unique(vector)
        if can_go[units].all() and protected.isdisjoint(units.tolist()):
            protected.add(int(units[np.argmax(scores.unit[units])]))
    return np.fromiter(protected, np.int64)

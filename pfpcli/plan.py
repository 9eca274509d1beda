"""Plan: which units go, so that what is left costs what was asked for.

An allocator says how many units each group keeps as a function of one number; that number is found by bisection on the
true cost of the cut network. Within a group the units with the highest scores stay.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli import pfp
from pfpcli.cost import Costs, Predictor
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.groups import Group, Groups
from pfpcli.score import Scores

#: A budget counts as met within this fraction of what was asked for.
TOLERANCE = 0.005


@dataclass(frozen=True)
class Plan:
    """What to keep.

    Attributes:
        groups: the graph's units.
        alive: bool[labels], what stays.
        kept: steps kept of each group (units of each part), in the order of `groups.groups`.
        before, after: costs, predicted.
        of: what the budget measures, "params" or "macs".
        asked: fraction asked for.
        epsilon: the error all layers share; None where nothing was dropped.
    """

    groups: Groups
    alive: NDArray[np.bool_]
    kept: tuple[int, ...]
    before: Costs
    after: Costs
    of: str
    asked: float
    epsilon: float | None

    @property
    def achieved(self) -> float:
        """Fraction kept."""
        return float(getattr(self.after, self.of) / getattr(self.before, self.of))

    @property
    def is_met(self) -> bool:
        """Whether the budget is met within the tolerance."""
        return abs(self.achieved - self.asked) <= TOLERANCE * self.asked


@dataclass(frozen=True)
class _Choice:
    """A prunable group: its units from the ones to keep first to the ones to drop first, and how few may stay.

    Attributes:
        order: int64[steps, parts], one unit of every part to a step.
        least: steps that stay at least.
        step: steps that go together.
    """

    group: Group
    order: NDArray[np.int64]
    least: int
    step: int

    def ranked(self, scores: Scores) -> NDArray[np.float64]:
        """float64[steps]: the score of each step, the largest of its parts."""
        return scores.unit[self.order].max(1)  # type: ignore[no-any-return]

    def rounded(self, count: int) -> int:
        """At least so many, in whole steps; all of them where a step goes beyond."""
        count = max(count, self.least)
        return min(len(self.order), math.ceil(count / self.step) * self.step)


def plan(
    groups: Groups,
    scores: Scores,
    *,
    keep: float,
    of: str = "params",
    multiple_of: int = 1,
    min_channels: int = 1,
) -> Plan:
    """The plan that keeps `keep` of the parameters or MACs, with one error shared by all layers.

    Args:
        groups: the graph's units.
        scores: one per unit; groups without scores are left as they are.
        keep: fraction to keep, 0 < keep <= 1.
        of: "params" or "macs".
        multiple_of: kept channels of a group are a multiple of this (or all of them).
        min_channels: fewest channels a group keeps.

    Raises:
        UnsupportedError: there is nothing to drop.
        BudgetError: even the smallest network costs more.
    """
    predictor = Predictor(groups)
    before = predictor.predict(groups.alive(np.zeros(0, np.int64)))
    everything = tuple(group.steps for group in groups.groups)
    if keep == 1:
        alive = groups.alive(np.zeros(0, np.int64))
        return Plan(groups, alive, everything, before, before, of, keep, None)
    choices = _choices(groups, scores, predictor, multiple_of, min_channels)
    if not choices:
        raise nothing_to_prune(groups)

    def cost(counts: list[int]) -> int:
        return int(getattr(predictor.predict(_alive(groups, choices, counts)), of))

    def counts_at(epsilon: float) -> list[int]:
        return [c.rounded(pfp.kept_count(c.ranked(scores), epsilon, _log(scores, c.group))) for c in choices]

    target = keep * getattr(before, of)
    counts, epsilon = _search(choices, counts_at, cost, target)
    smallest = cost([choice.rounded(0) for choice in choices])
    if cost(counts) > target * (1 + TOLERANCE) and smallest > target * (1 + TOLERANCE):
        raise _unreachable(choices, groups, keep, of, smallest / getattr(before, of))
    alive = _alive(groups, choices, counts)
    kept = {id(choice.group): count for choice, count in zip(choices, counts, strict=True)}
    per_group = tuple(kept.get(id(group), group.steps) for group in groups.groups)
    return Plan(groups, alive, per_group, before, predictor.predict(alive), of, keep, epsilon)


def _log(scores: Scores, group: Group) -> float:
    return float(scores.log[group.units].max())


def _choices(
    groups: Groups, scores: Scores, predictor: Predictor, multiple_of: int, min_channels: int
) -> list[_Choice]:
    scored = [group for group in groups.prunable if not np.isnan(scores.of(group)).any()]
    protected = _protected(scored, scores, predictor)
    choices = []
    for group in scored:
        must = np.isin(group.rows, protected)
        # the protected first, then by score; equal ones by their index
        ranks = np.lexsort((-scores.unit[group.rows], ~must), axis=1)
        order = np.take_along_axis(group.rows, ranks, 1).T
        step = multiple_of // math.gcd(multiple_of, group.width)
        least = max(1, int(must.sum(1).max()), math.ceil(min_channels / group.width))
        choices.append(_Choice(group, order, least, step))
    return choices


def _protected(scored: list[Group], scores: Scores, predictor: Predictor) -> NDArray[np.int64]:
    """Units that stay so that no dimension of any tensor loses all its channels: the best-scored of each."""
    may_go = np.zeros(len(scores.unit), dtype=bool)
    for group in scored:
        may_go[group.units] = True
    protected: set[int] = set()
    for vector in sorted(predictor.vectors, key=np.size):
        units = np.unique(vector)
        if may_go[units].all() and protected.isdisjoint(units.tolist()):
            protected.add(int(units[np.argmax(scores.unit[units])]))
    return np.fromiter(protected, np.int64)


def _alive(groups: Groups, choices: list[_Choice], counts: list[int]) -> NDArray[np.bool_]:
    dropped = [choice.order[count:].reshape(-1) for choice, count in zip(choices, counts, strict=True)]
    return groups.alive(np.concatenate(dropped))


def _search(
    choices: list[_Choice],
    counts_at: Callable[[float], list[int]],
    cost: Callable[[list[int]], int],
    target: float,
) -> tuple[list[int], float]:
    """Counts whose cost is closest to the target, and the epsilon they belong to.

    The cost falls as epsilon grows; bisection ends at the largest plan that costs no more than the target. Widths are
    whole numbers, so it may lie well below: then up to two groups move by one step each.
    """
    low, high = -20.0, 15.0  # decimal exponents: everything is kept at the first, as little as possible at the last
    while high - low > 1e-9:
        middle = (low + high) / 2
        if cost(counts_at(10**middle)) > target:
            low = middle
        else:
            high = middle
    above, below = counts_at(10**low), counts_at(10**high)
    best = min(_between(choices, below, above), key=lambda counts: abs(cost(counts) - target))
    if abs(cost(best) - target) > TOLERANCE * target:
        best = _nudged(choices, best, cost, target)
    return best, 10**high


def _between(choices: list[_Choice], below: list[int], above: list[int]) -> Iterator[list[int]]:
    """The plans from one to its neighbour, groups growing one after the other, a step at a time."""
    counts = list(below)
    yield list(counts)
    for i, choice in enumerate(choices):
        while counts[i] < above[i]:
            counts[i] = choice.rounded(counts[i] + 1)
            yield list(counts)


def _nudged(choices: list[_Choice], counts: list[int], cost: Callable[[list[int]], int], target: float) -> list[int]:
    """The plan closest to the target with at most two groups a step away from where they are.

    Steps are tried alone first; the sum of two of their differences says which pairs are worth a look.
    """
    now = cost(counts)
    steps = []
    for i, choice in enumerate(choices):
        for count in {choice.rounded(counts[i] + 1), choice.rounded(counts[i] - choice.step)} - {counts[i]}:
            moved = [*counts[:i], count, *counts[i + 1 :]]
            steps.append((i, count, cost(moved) - now))
    pairs = [(a, b) for a in steps for b in steps if a[0] <= b[0] and (a[0] != b[0] or a == b)]
    promising = sorted(pairs, key=lambda pair: abs(now + sum(d for _, _, d in set(pair)) - target))[:64]
    plans = [counts]
    for pair in promising:
        moved = list(counts)
        for i, count, _ in pair:
            moved[i] = count
        plans.append(moved)
    return min(plans, key=lambda plan: abs(cost(plan) - target))


def nothing_to_prune(groups: Groups) -> UnsupportedError:
    """The refusal of a network in which every channel is frozen."""
    reasons = sorted({group.frozen for group in groups.groups if group.frozen})
    return UnsupportedError(
        f"nothing can be pruned: {'; '.join(reasons) or 'no layer with weights reads channels of another one'}",
        "name fewer layers with --freeze; an op without a rule is worth an issue",
    )


def _unreachable(choices: list[_Choice], groups: Groups, keep: float, of: str, smallest: float) -> BudgetError:
    what = "parameters" if of == "params" else "MACs"
    frozen = sum(bool(group.frozen) for group in groups.groups)
    reachable = math.ceil(smallest * 1000) / 1000
    least = min(choice.rounded(0) * choice.group.width for choice in choices)
    rounding = "; --multiple-of is large for this network" if any(choice.step > 1 for choice in choices) else ""
    return BudgetError(
        f"--keep {keep:g}: not reachable; the smallest valid network keeps {reachable:.3f} of the {what} "
        f"(every group keeps at least {least} channel{'s' * (least > 1)}; {frozen} groups are frozen{rounding})",
        f"use `--keep {reachable:.3f}` or more" + (", or a smaller --multiple-of" if rounding else ""),
    )

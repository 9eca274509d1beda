"""Plan: which units go, so that what is left costs what was asked for.

An allocator says how many units each group keeps as a function of one number; that number is found by bisection on the
true cost of the cut network. Which ones stay is the business of `select`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.cost import Costs, Predictor
from pfpcli.channels.groups import Group, Groups
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.planning.curves import MEASURED, Curve
from pfpcli.planning.select import SELECTIONS, Draws
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import Scores

#: A budget counts as met within this fraction of what was asked for.
TOLERANCE = 0.005
#: How often widths are chosen anew by what they cost where they were before.
_ROUNDS = 4
#: A curve counts (number of layers that read its group) to the power of this. It is measured with the group alone cut
#: and each reader refitted by itself; where all are cut, later layers make good much of what is lost inside of a
#: branch, and little of what all of them read.
_SPREAD = 0.5


@dataclass(frozen=True)
class Budget:
    """How much to keep.

    Attributes:
        keep: fraction to keep, 0 < keep <= 1.
        of: what it measures, "params" or "macs".
        epsilon: keep as little as leaves every layer within this relative error; `keep` does not count then.
        multiple_of: kept channels of a group are a multiple of this (or all of them).
        min_channels: fewest channels a group keeps.
        min_part: fewest units each part of a group with several parts keeps.
    """

    keep: float = 0.5
    of: str = "params"
    epsilon: float | None = None
    multiple_of: int = 1
    min_channels: int = 1
    min_part: int = 1


@dataclass(frozen=True)
class Plan:
    """What to keep.

    Attributes:
        groups: the graph's units.
        alive: bool[labels], what stays.
        scale: float64[labels], what the layers that read a unit multiply it with; 1 unless it was sampled.
        kept: steps kept of each group (units of each part), in the order of `groups.groups`.
        draws: how the units of each group were drawn, None where nothing was sampled.
        before, after: costs, predicted.
        budget: what was asked for.
        epsilon: the error all layers share; None where nothing was dropped, or they share none.
    """

    groups: Groups
    alive: NDArray[np.bool_]
    scale: NDArray[np.float64]
    kept: tuple[int, ...]
    draws: tuple[Draws | None, ...]
    before: Costs
    after: Costs
    budget: Budget
    epsilon: float | None

    @property
    def achieved(self) -> float:
        """Fraction kept."""
        return float(getattr(self.after, self.budget.of) / getattr(self.before, self.budget.of))

    @property
    def is_met(self) -> bool:
        """Whether the budget is met within the tolerance."""
        return self.budget.epsilon is not None or abs(self.achieved - self.budget.keep) <= TOLERANCE * self.budget.keep

    @property
    def is_sampled(self) -> bool:
        """Whether layers have to be re-weighted."""
        return bool((self.scale != 1).any())


@dataclass(frozen=True)
class _Choice:
    """A prunable group: its units from the ones to keep first to the ones to drop first, and how few may stay.

    Attributes:
        order: int64[steps, parts], one unit of every part to a step.
        scores: float64[steps], the largest of the parts.
        protected: steps that stay so that no tensor loses everything; they come first.
        least: steps that stay at least.
        step: steps that go together.
    """

    group: Group
    order: NDArray[np.int64]
    scores: NDArray[np.float64]
    protected: int
    least: int
    step: int

    def rounded(self, count: int) -> int:
        """At least so many, in whole steps; all of them where a step goes beyond."""
        count = max(count, self.least)
        return min(len(self.order), math.ceil(count / self.step) * self.step)


#: Steps each group keeps, by one number: the larger it is, the fewer.
_Counts = Callable[[float], list[int]]


@dataclass(frozen=True)
class _Known:
    """What an allocator may go by.

    Attributes:
        scores: one per unit.
        delta: probability with which an error bound may fail.
        curves: of each choice; none where none were measured.
        prices: what a step of each choice costs, where widths are now.
    """

    scores: Scores
    delta: float
    curves: Sequence[Curve]
    prices: list[float]


def _shared_error(choices: list[_Choice], known: _Known) -> _Counts:
    """PFP's: every layer may err by the same epsilon, and keeps what that asks for."""
    log = known.scores.log(known.delta)
    logs = [float(log[choice.group.units].max()) for choice in choices]
    return lambda epsilon: [
        c.rounded(pfp.kept_count(c.scores, epsilon, log)) for c, log in zip(choices, logs, strict=True)
    ]


def _uniform(choices: list[_Choice], known: _Known) -> _Counts:
    """Every group keeps the same fraction, 1 / (1 + level)."""
    return lambda level: [c.rounded(math.ceil(len(c.order) / (1 + level) - 1e-9)) for c in choices]


def _least_loss(choices: list[_Choice], known: _Known, of: str) -> _Counts:
    """The least sum of what curves say is lost, for what it costs: each group minimises loss + level * cost."""
    spread = [max(1, len(choice.group.readers)) ** _SPREAD for choice in choices]
    losses = [curve.at_every_width(of) * by for curve, by in zip(known.curves, spread, strict=True)]
    costs = [price * np.arange(len(loss)) for price, loss in zip(known.prices, losses, strict=True)]
    pairs = list(zip(choices, losses, costs, strict=True))
    return lambda level: [c.rounded(int(np.argmin(loss + level * cost))) for c, loss, cost in pairs]


#: Who says how many channels each group keeps.
ALLOCATORS: dict[str, Callable[[list[_Choice], _Known], _Counts]] = {
    "pfp": _shared_error,
    "uniform": _uniform,
    **{of: partial(_least_loss, of=of) for of in MEASURED},
}


def plan(
    groups: Groups,
    scores: Scores,
    budget: Budget,
    *,
    allocate: str = "pfp",
    select: str = "largest",
    delta: float = pfp.DELTA,
    seed: int = 0,
    curves: Sequence[Curve] = (),
) -> Plan:
    """The plan that meets a budget.

    Args:
        groups: the graph's units.
        scores: one per unit; groups without scores are left as they are.
        budget: how much to keep.
        allocate: one of `ALLOCATORS`.
        select: one of `pfpcli.planning.select.SELECTIONS`.
        delta: probability with which an error bound may fail.
        seed: of what is sampled.
        curves: of each of `orders`, for an allocator that goes by them.

    Raises:
        UnsupportedError: there is nothing to drop.
        BudgetError: even the smallest network costs more.
    """
    predictor = Predictor(groups)
    before = predictor.predict(groups.alive(np.zeros(0, np.int64)))
    if budget.keep == 1 and budget.epsilon is None:
        return everything(groups, predictor, budget)
    choices = _choices(groups, scores, predictor, budget)
    if not choices:
        raise nothing_to_prune(groups)

    def cost(counts: list[int]) -> int:
        return int(getattr(predictor.predict(_alive(groups, choices, counts)), budget.of))

    counts = [len(choice.order) for choice in choices]
    if budget.epsilon is not None:
        level = budget.epsilon
        drawn = _shared_error(choices, _Known(scores, delta, (), []))
        counts = _bounded(choices, scores, level) if select == "largest" else drawn(level)
    else:
        target = budget.keep * getattr(before, budget.of)
        for _ in range(_ROUNDS if allocate in MEASURED else 1):  # prices depend on the widths that they lead to
            known = _Known(scores, delta, curves, _prices(choices, counts, cost))
            counts, level = _search(choices, ALLOCATORS[allocate](choices, known), cost, target)
        smallest = cost([choice.rounded(0) for choice in choices])
        if cost(counts) > target * (1 + TOLERANCE) and smallest > target * (1 + TOLERANCE):
            raise _unreachable(choices, groups, budget, smallest / getattr(before, budget.of))
    shared = allocate == "pfp" or budget.epsilon is not None
    return _chosen(groups, predictor, choices, counts, budget, select, seed, level if shared else None)


def orders(groups: Groups, scores: Scores, budget: Budget) -> list[tuple[Group, NDArray[np.int64]]]:
    """The groups that may lose something, each with its units from the ones to keep first to the ones that go first.

    Returns:
        (group, int64[steps, parts]) each.
    """
    return [(choice.group, choice.order) for choice in _choices(groups, scores, Predictor(groups), budget)]


def without(groups: Groups, idle: NDArray[np.bool_]) -> Plan:
    """The plan that drops units whose absence changes nothing, as far as every tensor and every part allows.

    Args:
        groups: the graph's units.
        idle: bool[labels], the units nobody needs; those of frozen groups stay all the same.
    """
    predictor, budget = Predictor(groups), Budget(keep=1)
    choices = _choices(groups, Scores(np.where(idle, 0.0, 1.0)), predictor, budget)
    # protected ones precede others that are needed, so it is the last needed one that counts
    counts = [choice.rounded(int(np.flatnonzero(choice.scores).max(initial=-1)) + 1) for choice in choices]
    return _chosen(groups, predictor, choices, counts, budget, "largest", 0, None)


def everything(groups: Groups, predictor: Predictor, budget: Budget) -> Plan:
    """The plan that drops nothing."""
    kept = tuple(group.positions for group in groups.groups)
    alive = groups.alive(np.zeros(0, np.int64))
    costs = predictor.predict(alive)
    return Plan(groups, alive, np.ones(len(alive)), kept, (None,) * len(kept), costs, costs, budget, None)


def _chosen(
    groups: Groups,
    predictor: Predictor,
    choices: list[_Choice],
    counts: list[int],
    budget: Budget,
    select: str,
    seed: int,
    epsilon: float | None,
) -> Plan:
    """The plan that keeps so many steps of each choice."""
    scale = np.ones(len(groups.root))
    kept = {id(group): group.positions for group in groups.groups}
    draws: dict[int, Draws | None] = {}
    dropped = [np.zeros(0, np.int64)]
    for i, (choice, count) in enumerate(zip(choices, counts, strict=True)):
        rng = np.random.default_rng((seed, i))
        chosen = SELECTIONS[select](choice.scores, choice.protected, count, rng)
        scale[choice.order[chosen.kept]] = chosen.scale[:, None]
        dropped.append(np.delete(choice.order, chosen.kept, axis=0).reshape(-1))
        kept[id(choice.group)], draws[id(choice.group)] = count, chosen.draws
    alive = groups.alive(np.concatenate(dropped))
    return Plan(
        groups,
        alive,
        scale[groups.root],
        tuple(kept[id(group)] for group in groups.groups),
        tuple(draws.get(id(group)) for group in groups.groups),
        predictor.predict(groups.alive(np.zeros(0, np.int64))),
        predictor.predict(alive),
        budget,
        epsilon,
    )


def _bounded(choices: list[_Choice], scores: Scores, epsilon: float) -> list[int]:
    """The fewest steps whose absence moves no layer by more than epsilon, relative, on the images scored.

    What a layer loses is at most the sum of what the dropped units have in it; each layer gives up its least ones
    until that sum is reached, and a unit goes if every layer that reads it gives it up.
    """
    given_up = np.ones(len(scores.unit), dtype=bool)
    for layer in scores.layers:
        order = np.argsort(layer.shares, kind="stable")
        # float32 sums of shares may lie a rounding error above what they are
        too_much = order[np.cumsum(layer.shares[order]) > epsilon * (1 - 1e-6)]
        given_up[layer.units[too_much]] = False
    counts = []
    for choice in choices:
        stays = np.flatnonzero(~given_up[choice.order].all(1))
        counts.append(choice.rounded(int(stays.max(initial=-1)) + 1))
    return counts


def _choices(groups: Groups, scores: Scores, predictor: Predictor, budget: Budget) -> list[_Choice]:
    scored = [group for group in groups.prunable if not np.isnan(scores.of(group)).any()]
    protected = _protected(scored, scores, predictor)
    choices = []
    for group in scored:
        must = np.isin(group.rows, protected)
        # the protected first, then by score; equal ones by their index
        ranks = np.lexsort((-scores.unit[group.rows], ~must), axis=1)
        order = np.take_along_axis(group.rows, ranks, 1).T
        step = budget.multiple_of // math.gcd(budget.multiple_of, group.width)
        most = int(must.sum(1).max())
        least = max(1, most, math.ceil(budget.min_channels / group.width))
        if len(group.rows) > 1:
            least = max(least, min(budget.min_part, group.positions))
        choices.append(_Choice(group, order, scores.unit[order].max(1), most, least, step))
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


def _prices(choices: list[_Choice], counts: list[int], cost: Callable[[list[int]], int]) -> list[float]:
    """What a step of each group costs, around the widths that there are."""
    found = []
    for i, choice in enumerate(choices):
        by = max(1, len(choice.order) // 8)
        fewer, more = max(1, counts[i] - by), min(len(choice.order), counts[i] + by)
        ends = [cost([*counts[:i], end, *counts[i + 1 :]]) for end in (fewer, more)]
        found.append((ends[1] - ends[0]) / max(1, more - fewer))
    return found


def _alive(groups: Groups, choices: list[_Choice], counts: list[int]) -> NDArray[np.bool_]:
    dropped = [choice.order[count:].reshape(-1) for choice, count in zip(choices, counts, strict=True)]
    return groups.alive(np.concatenate(dropped))


def _search(
    choices: list[_Choice],
    counts_at: _Counts,
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


def _unreachable(choices: list[_Choice], groups: Groups, budget: Budget, smallest: float) -> BudgetError:
    what = "parameters" if budget.of == "params" else "MACs"
    frozen = sum(bool(group.frozen) for group in groups.groups)
    reachable = math.ceil(smallest * 1000) / 1000
    least = min(choice.rounded(0) * choice.group.width for choice in choices)
    rounding = "; --multiple-of is large for this network" if any(choice.step > 1 for choice in choices) else ""
    return BudgetError(
        f"--keep {budget.keep:g}: not reachable; the smallest valid network keeps {reachable:.3f} of the {what} "
        f"(every group keeps at least {least} channel{'s' * (least > 1)}; {frozen} groups are frozen{rounding})",
        f"use `--keep {reachable:.3f}` or more" + (", or a smaller --multiple-of" if rounding else ""),
    )

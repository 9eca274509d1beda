"""Planner: the plan that meets a budget.

An allocator says how many positions each group keeps as a function of one number. Bisection on the cost of the cut
network finds that number (`search`). `select` then decides which units stay. `portfolio` compares the plans of several
allocators.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.cost import Costs, Predictor
from pfpcli.channels.groups import Groups
from pfpcli.planning.allocations import ALLOCATIONS, WORK
from pfpcli.planning.allocators import Allocator, Counts, Evidence, allocator, shared_error
from pfpcli.planning.choices import Choice, alive_labels, find_choices, multiples
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import TOLERANCE, Budget, Plan, everything
from pfpcli.planning.refusals import nothing_to_prune, unreachable
from pfpcli.planning.search import Cost, search
from pfpcli.planning.select import SELECTIONS, Draws
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import Scores

#: How often an allocator that reads curves is asked: prices depend on the counts that follow from them.
_ROUNDS = 4
#: Widths between those of two plans may cost less than the budget: they may grow by this factor.
_ROOM = 1.25


class Planner:
    """Makes plans that meet one budget.

    Args:
        groups: the groups of the network.
        scores: a score for each unit; groups without scores keep everything.
        budget: how much to keep.
        predictor: of the same groups; one that predicts latencies where the budget is one.
        select: one of `select.SELECTIONS`.
        delta: probability with which an error bound may fail.
        seed: of the random sample.
        curves: one for each of `choices.orders`, for an allocator that reads curves.

    Raises:
        UnsupportedError: no group can lose units.
    """

    def __init__(
        self,
        groups: Groups,
        scores: Scores,
        budget: Budget,
        *,
        predictor: Predictor | None = None,
        select: str = "largest",
        delta: float = pfp.DELTA,
        seed: int = 0,
        curves: Sequence[Curve] = (),
    ) -> None:
        self._groups = groups
        self._predictor = predictor or Predictor(groups)
        self._budget = budget
        self._select = select
        self._seed = seed
        self._evidence = Evidence(scores, delta, curves)
        self._whole = everything(groups, self._predictor, budget)
        # they differ in their steps alone
        self._stepped = [
            find_choices(groups, scores, self._predictor, budget, most) for most in multiples(groups, budget)
        ]
        self._choices = self._stepped[0]
        # searches ask for the same counts again and again
        self._costs: dict[tuple[int, ...], Costs] = {}
        if not self._choices and not self._is_whole:
            raise nothing_to_prune(groups)

    @property
    def _is_whole(self) -> bool:
        return self._budget.keep == 1 and self._budget.epsilon is None

    def by(self, allocate: str) -> Plan:
        """Return the plan of an allocation.

        Args:
            allocate: one of `allocations.ALLOCATIONS`.

        Raises:
            BudgetError: the smallest valid network costs more than the budget.
        """
        if self._is_whole:
            return self._whole
        epsilon = self._budget.epsilon
        if epsilon is None:
            row = ALLOCATIONS[allocate]
            priced_by = (row.priced_by or self._budget.of) if row.needs_curves else ""
            counts, level = self._within_cost(allocator(allocate), priced_by)
        elif self._select == "largest":
            # as little as stays within the error: widths are not rounded unless that was asked for
            counts, level = _within_error(self._stepped[-1], self._evidence.scores, epsilon), epsilon
        else:
            counts, level = shared_error(self._stepped[-1], self._evidence)(epsilon), epsilon
        return self._made(counts, level if epsilon is not None or ALLOCATIONS[allocate].shares_error else None)

    def between(self, a: Plan, b: Plan, share: float) -> Plan:
        """Return a plan whose widths lie between those of two plans, adjusted to the budget.

        Args:
            a: a plan of this planner.
            b: another one.
            share: how far to go from a to b, 0 to 1.
        """
        kept = [{id(group): n for group, n in zip(self._groups.groups, each.kept, strict=True)} for each in (a, b)]
        ends = [[each[id(choice.group)] for choice in self._choices] for each in kept]
        mixed = [(1 - share) * start + share * end for start, end in zip(*ends, strict=True)]

        def counts(choices: Sequence[Choice], evidence: Evidence) -> Counts:
            pairs = list(zip(choices, mixed, strict=True))
            return lambda level: [c.nearest(_ROOM * n / (1 + level)) for c, n in pairs]

        return self._made(self._within_cost(counts)[0], None)

    def expected_loss(self, plan: Plan) -> float:
        """Return the sum of what the groups of a plan lose alone, by their curves: distances of the outputs."""
        kept = {id(group): count for group, count in zip(self._groups.groups, plan.kept, strict=True)}
        pairs = zip(self._choices, self._evidence.curves, strict=True)
        return sum(float(curve.at_every_width("distance")[kept[id(choice.group)]]) for choice, curve in pairs)

    def _within_cost(self, allocate: Allocator, priced_by: str = "") -> tuple[list[int], float]:
        """Return the positions each choice keeps so that the network costs what the budget says, and their level.

        Args:
            allocate: the allocator.
            priced_by: the cost whose prices it reads; "" if it reads none.
        """
        cost = self._cost(self._budget.of)
        target = self._budget.keep * self._whole.before.of(self._budget.of)
        for choices in self._stepped:
            counts, level = [len(choice.order) for choice in choices], 0.0
            for _ in range(_ROUNDS if priced_by else 1):
                prices = _prices(choices, counts, self._cost(priced_by)) if priced_by else ()
                counts, level = search(choices, allocate(choices, replace(self._evidence, prices=prices)), cost, target)
            if abs(cost(counts) - target) <= TOLERANCE * target:
                return counts, level
        if cost(counts) > target * (1 + TOLERANCE):
            _check_smallest(self._groups, self._stepped[-1], self._predictor, self._budget)
        return counts, level

    def _cost(self, of: str) -> Cost:
        """Return what tells a cost of the network, or its work, for the positions that each choice keeps."""
        if of == WORK:
            return lambda counts: self._predictor.work(alive_labels(self._groups, self._choices, counts))

        def cost(counts: list[int]) -> float:
            key = tuple(counts)
            if key not in self._costs:
                self._costs[key] = self._predictor.predict(alive_labels(self._groups, self._choices, counts))
            return self._costs[key].of(of)

        return cost

    def _made(self, counts: list[int], epsilon: float | None) -> Plan:
        return _select(
            self._groups, self._predictor, self._choices, counts, self._budget, self._select, self._seed, epsilon
        )


def check_reachable(groups: Groups, budget: Budget, predictor: Predictor) -> float:
    """Refuse a budget that no scores can meet, before anything is scored; returns the smallest keep ratio.

    Raises:
        BudgetError: the smallest valid network costs more than the budget.
    """
    if budget.epsilon is not None or budget.keep == 1:
        return 0.0
    choices = find_choices(groups, Scores(np.zeros(len(groups.root))), predictor, budget, most=1)
    return _check_smallest(groups, choices, predictor, budget)


def _check_smallest(groups: Groups, choices: Sequence[Choice], predictor: Predictor, budget: Budget) -> float:
    least = predictor.predict(alive_labels(groups, choices, [choice.rounded(0) for choice in choices]))
    whole = predictor.predict(groups.alive(np.zeros(0, np.int64)))
    smallest = least.of(budget.of) / whole.of(budget.of)
    if smallest > budget.keep * (1 + TOLERANCE):
        raise unreachable(choices, groups, budget, smallest)
    return smallest


def without(groups: Groups, idle: NDArray[np.bool_]) -> Plan:
    """Return the plan that drops units whose absence changes no output.

    Some of them stay: each dimension of a tensor keeps a channel, and each part of a group keeps as many as the others.

    Args:
        groups: the groups of the network.
        idle: bool[labels], the units that no layer needs; those of frozen groups stay.
    """
    predictor, budget = Predictor(groups), Budget(keep=1)
    choices = find_choices(groups, Scores(np.where(idle, 0.0, 1.0)), predictor, budget)
    # protected units come before needed ones, so the last needed position counts, not the number of needed ones
    counts = [choice.rounded(int(np.flatnonzero(choice.scores).max(initial=-1)) + 1) for choice in choices]
    return _select(groups, predictor, choices, counts, budget, "largest", 0, None)


def _prices(choices: Sequence[Choice], counts: list[int], cost: Cost) -> list[float]:
    """Return what one position of each choice costs, from the costs a little below and above its count."""
    found = []
    for i, choice in enumerate(choices):
        by = max(1, len(choice.order) // 8)
        fewer, more = max(1, counts[i] - by), min(len(choice.order), counts[i] + by)
        ends = [cost([*counts[:i], end, *counts[i + 1 :]]) for end in (fewer, more)]
        found.append((ends[1] - ends[0]) / max(1, more - fewer))
    return found


def _within_error(choices: Sequence[Choice], scores: Scores, epsilon: float) -> list[int]:
    """Return the fewest positions of each choice with which no layer errs by more than epsilon on the scoring images.

    The relative error of a layer is at most the sum of the shares of its dropped units. Each layer gives up its units
    with the least shares until that sum would exceed epsilon. A unit is dropped if every layer that reads it gives it
    up.
    """
    given_up = np.ones(len(scores.unit), dtype=bool)
    for layer in scores.layers:
        order = np.argsort(layer.shares, kind="stable")
        # float32 sums of shares may exceed the true sums by a rounding error
        too_much = order[np.cumsum(layer.shares[order]) > epsilon * (1 - 1e-6)]
        given_up[layer.units[too_much]] = False
    counts = []
    for choice in choices:
        stays = np.flatnonzero(~given_up[choice.order].all(1))
        counts.append(choice.rounded(int(stays.max(initial=-1)) + 1))
    return counts


def _select(
    groups: Groups,
    predictor: Predictor,
    choices: Sequence[Choice],
    counts: Sequence[int],
    budget: Budget,
    select: str,
    seed: int,
    epsilon: float | None,
) -> Plan:
    """Return the plan in which each choice keeps its count of positions; select: one of `SELECTIONS`."""
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
    made = Plan(
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
    made.check(predictor)
    return made

"""Plan: the values of planning. A `Budget` is what was asked for, a `Plan` is which channels stay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.cost import Costs, Predictor
from pfpcli.channels.groups import Groups
from pfpcli.graph.invariant import InvariantError
from pfpcli.planning.select import Draws

#: A budget is met if the keep ratio is within this fraction of what was asked for.
TOLERANCE = 0.005


@dataclass(frozen=True)
class Budget:
    """How much to keep.

    Attributes:
        keep: keep ratio, 0 < keep <= 1.
        of: what the keep ratio measures, one of `amounts.COUNTED`.
        epsilon: if set, keep as little as leaves every layer within this relative error, and ignore `keep`.
        multiple_of: kept channels of a group are a multiple of this (or all of them); None stands for what runs well:
            see `choices.multiples`. It yields where the budget could not be met.
        min_channels: fewest channels a group keeps.
        min_part: fewest units each part of a group with several parts keeps.
    """

    keep: float = 0.5
    of: str = "params"
    epsilon: float | None = None
    multiple_of: int | None = 1
    min_channels: int = 1
    min_part: int = 1


@dataclass(frozen=True)
class Plan:
    """Which channels stay.

    Attributes:
        groups: the groups of the network.
        alive: bool[labels], True for the labels that stay.
        scale: float64[labels], the factor that compensates for sampling: layers multiply their weights for a unit with
            it. It is 1 where nothing was sampled.
        kept: the number of positions each group keeps (units of each part), in the order of `groups.groups`.
        draws: how the units of each group were drawn; None for a group that was not sampled.
        before, after: predicted costs of the original and of the cut network.
        budget: what was asked for.
        epsilon: the relative error that all layers share; None if they share none.
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
        """The keep ratio."""
        return self.after.of(self.budget.of) / self.before.of(self.budget.of)

    @property
    def is_met(self) -> bool:
        """Whether the budget is met within the tolerance."""
        return self.budget.epsilon is not None or abs(self.achieved - self.budget.keep) <= TOLERANCE * self.budget.keep

    @property
    def is_sampled(self) -> bool:
        """Whether layers have to be re-weighted."""
        return bool((self.scale != 1).any())

    def check(self, predictor: Predictor | None = None) -> None:
        """Check that the plan fits its groups.

        - Labels of one unit agree, in `alive` and in `scale`. Label 0, which stands for all channels that cannot be
          dropped, stays. The units of a dropped head are dropped.
        - Each part of a group keeps as many units as `kept` says, but for the units of dropped heads. Frozen groups
          keep everything.
        - The scale is 1 wherever nothing was sampled.
        - Every dimension of every tensor keeps a channel, and the costs are those predicted.

        A plan that was read from a file does not know its draws; if it was sampled, the check of the scale fails.

        Args:
            predictor: of the same groups; None builds one.

        Raises:
            InvariantError: a rule does not hold; the message names the group, what was found and what was expected.
        """
        problem = next(_problems(self, Predictor(self.groups) if predictor is None else predictor), None)
        if problem is not None:
            raise InvariantError(problem)


def everything(groups: Groups, predictor: Predictor, budget: Budget) -> Plan:
    """Return the plan that drops nothing."""
    kept = tuple(group.positions for group in groups.groups)
    alive = groups.alive(np.zeros(0, np.int64))
    costs = predictor.predict(alive)
    return Plan(groups, alive, np.ones(len(alive)), kept, (None,) * len(kept), costs, costs, budget, None)


def _problems(plan: Plan, predictor: Predictor) -> Iterator[str]:
    """Yield every rule of `Plan.check` that does not hold."""
    return chain(_of_labels(plan), _of_groups(plan), _of_scale(plan), _of_tensors(plan, predictor))


def _of_labels(plan: Plan) -> Iterator[str]:
    root, alive = plan.groups.root, plan.alive
    if not alive[0]:
        yield "label 0 stands for channels that cannot be dropped: found dropped, expected kept"
    for name, values in (("alive", alive), ("scale", plan.scale)):
        for label in np.flatnonzero(values != values[root])[:1]:
            unit = root[label]
            yield f"{_owner(plan, unit)}: {name} of label {label}: found {values[label]}, expected {values[unit]}"
    for head, owned in plan.groups.owned.items():
        if not alive[head] and alive[owned].any():
            yield f"{_owner(plan, head)}: head {head}: found {int(alive[owned].sum())} kept units, expected 0"


def _of_groups(plan: Plan) -> Iterator[str]:
    dropped_heads = [units for head, units in plan.groups.owned.items() if not plan.alive[head]]
    with_heads = np.concatenate([*dropped_heads, np.zeros(0, np.int64)])
    for group, kept in zip(plan.groups.groups, plan.kept, strict=True):
        if group.frozen and kept != group.positions:
            yield f"group {group.name} is frozen: found {kept} kept positions, expected {group.positions}"
        for row in group.rows:
            found = int(plan.alive[row].sum())
            # the units of a dropped head are dropped on top of those that the group itself drops
            if found > kept or (found < kept and not np.isin(row, with_heads).any()):
                yield f"group {group.name}: found {found} kept units in a part, expected {kept}"


def _of_scale(plan: Plan) -> Iterator[str]:
    sampled = np.zeros(len(plan.scale), dtype=bool)
    for group, draws in zip(plan.groups.groups, plan.draws, strict=True):
        sampled[group.units] = draws is not None
    for unit in plan.groups.root[(plan.scale != 1) & ~sampled[plan.groups.root]][:1]:
        yield f"{_owner(plan, unit)} was not sampled: found scale {plan.scale[unit]}, expected 1"


def _of_tensors(plan: Plan, predictor: Predictor) -> Iterator[str]:
    for units in predictor.vectors:
        if units.size and not plan.alive[units].any():
            yield f"{_owner(plan, int(units.flat[0]))}: found no kept channel in a dimension of a tensor, expected 1"
    everything_alive = plan.groups.alive(np.zeros(0, np.int64))
    for name, costs, alive in (("before", plan.before, everything_alive), ("after", plan.after, plan.alive)):
        expected = predictor.predict(alive)
        if costs != expected:
            yield f"costs {name}: found {costs}, expected {expected}"


def _owner(plan: Plan, unit: int) -> str:
    """Return the group of a unit, for a message."""
    names = [group.name for group in plan.groups.groups if (group.units == unit).any()]
    return f"group {names[0]}" if names else f"unit {unit} (in no group)"

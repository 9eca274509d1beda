"""Portfolio: the best of several plans for one budget, measured on the networks that they lead to.

What each group loses alone says little about what all groups lose together. So the plan of each allocation is tried:
the network is cut, refitted coarsely and measured. Then widths move from the best plan towards the others, as long as
the measured network gets better.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pfpcli.planning.allocations import ALLOCATIONS
from pfpcli.planning.plan import Plan
from pfpcli.planning.planner import Planner

#: A plan is not tried if what its groups lose alone, added up, is this many times as much as for another plan.
HOPELESS = 3.0
#: A plan is not tried if it misses the budget by this much more than another one.
MISSED = 0.02
#: Widths move towards this many other plans, by this fraction of the way.
TOWARDS, STEP = 2, 1 / 4


@dataclass(frozen=True)
class Tried:
    """A plan that was tried.

    Attributes:
        name: its allocation; "between" for a plan that lies between others.
        loss: the measured loss of its network.
        plan: the plan.
    """

    name: str
    loss: float
    plan: Plan


def try_plans(planner: Planner, names: Sequence[str], measure: Callable[[Plan], float]) -> list[Tried]:
    """Try plans, and return them with the best one first.

    Args:
        planner: makes the plans.
        names: the allocations, some of `allocations.ALLOCATIONS`.
        measure: returns the loss of the network that a plan leads to.

    Raises:
        BudgetError: the smallest valid network costs more than the budget.
    """
    tried: dict[tuple[int, ...], Tried] = {}

    def attempt(name: str, plan: Plan) -> Tried:
        if plan.kept not in tried:
            tried[plan.kept] = Tried(name, measure(plan), plan)
        return tried[plan.kept]

    plans = _near_budget({name: planner.by(name) for name in names})
    for name, plan in _hopeful(planner, plans).items():
        attempt(name, plan)
    best, *others = _ranked(tried.values())
    for other in others[:TOWARDS]:
        moved = attempt("between", planner.between(best.plan, other.plan, STEP))
        best = min(best, moved, key=lambda each: each.loss)
    return _ranked(tried.values())


def moved(planner: Planner, tried: Tried) -> Plan:
    """Return the plan for another budget that is most like one that was tried.

    Args:
        planner: makes plans for the other budget.
        tried: the plan. Its allocation makes the other one; a plan between others has none, so its widths are scaled.

    Raises:
        BudgetError: the smallest valid network costs more than the budget.
    """
    return planner.by(tried.name) if tried.name in ALLOCATIONS else planner.between(tried.plan, tried.plan, 0)


def _near_budget(plans: dict[str, Plan]) -> dict[str, Plan]:
    """Leave out plans that miss the budget by more than `MISSED` and another plan does not: they only keep more."""
    missed = {name: abs(plan.achieved - plan.budget.keep) for name, plan in plans.items()}
    nearest = min(missed.values())
    return {name: plan for name, plan in plans.items() if missed[name] <= nearest + MISSED}


def _hopeful(planner: Planner, plans: dict[str, Plan]) -> dict[str, Plan]:
    """Leave out plans whose groups lose far more alone than those of another plan."""
    if len(plans) == 1:  # perhaps of an allocation that needs no curves
        return plans
    expected = {name: planner.expected_loss(plan) for name, plan in plans.items()}
    return {name: plan for name, plan in plans.items() if expected[name] <= HOPELESS * min(expected.values())}


def _ranked(tried: Iterable[Tried]) -> list[Tried]:
    return sorted(tried, key=lambda each: each.loss)

"""Refusals: the errors of planning."""

from __future__ import annotations

import math
from collections.abc import Sequence

from pfpcli.amounts import COUNTED
from pfpcli.channels.groups import Groups
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.planning.choices import Choice
from pfpcli.planning.plan import Budget


def nothing_to_prune(groups: Groups) -> UnsupportedError:
    """Return the error for a network in which every group is frozen."""
    reasons = sorted({group.frozen for group in groups.groups if group.frozen})
    return UnsupportedError(
        f"nothing can be pruned: {'; '.join(reasons) or 'no layer with weights reads channels of another one'}",
        "name fewer layers with --freeze; an op without a rule is worth an issue",
    )


def unreachable(choices: Sequence[Choice], groups: Groups, budget: Budget, smallest: float) -> BudgetError:
    """Return the error for a budget below the smallest valid network.

    Args:
        choices: the groups that can lose units.
        groups: all groups.
        budget: what was asked for.
        smallest: the keep ratio of the smallest valid network.
    """
    what, flag = COUNTED[budget.of].noun, f"--{budget.of}" if COUNTED[budget.of].is_measured else "--keep"
    frozen = sum(bool(group.frozen) for group in groups.groups)
    reachable = math.ceil(smallest * 1000) / 1000
    least = min(choice.rounded(0) * choice.group.width for choice in choices)
    rounding = "; --multiple-of is large for this network" if any(choice.step > 1 for choice in choices) else ""
    return BudgetError(
        f"{flag} {budget.keep:g}: not reachable; the smallest valid network keeps {reachable:.3f} of the {what} "
        f"(every group keeps at least {least} channel{'s' * (least > 1)}; {frozen} groups are frozen{rounding})",
        f"use `{flag} {reachable:.3f}` or more" + (", or a smaller --multiple-of" if rounding else ""),
    )

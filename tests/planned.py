"""Plans of one allocation."""

from __future__ import annotations

from typing import Any

from pfpcli.channels.groups import Groups
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.planner import Planner
from pfpcli.scoring.scores import Scores


def plan(groups: Groups, scores: Scores, budget: Budget, *, allocate: str = "pfp", **how: Any) -> Plan:
    return Planner(groups, scores, budget, **how).by(allocate)

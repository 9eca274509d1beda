"""Every op pfp understands. A new one is one record in the module of its kind; nothing else has to know.

pointwise     what meets at a place lives and dies together
movement      the op itself is run on the labels
contraction   reads channels, makes new ones
statistics    norms, pooling, reductions
"""

from __future__ import annotations

from typing import Any

from pfpcli.channels.rules import contraction, movement, pointwise, statistics
from pfpcli.channels.rules.rule import RULES, Columns, Rule, into_weight
from pfpcli.graph.calls import is_pointwise

__all__ = [
    "RULES",
    "Columns",
    "Rule",
    "contraction",
    "find",
    "into_weight",
    "movement",
    "pointwise",
    "statistics",
]

_POINTWISE = Rule(pointwise.pointwise, ragged=True)


def find(target: Any) -> Rule | None:
    """The rule of an op, or None: then whatever it touches is frozen."""
    rule = RULES.get(str(target))
    if rule is None and is_pointwise(target):
        return pointwise.CLIPPING.get(str(target), _POINTWISE)
    if rule is None and str(target) == "<built-in function getitem>":
        return _GETITEM
    return rule


def _getitem(flow: Any, values: Any, index: int) -> Any:
    """One of several results."""
    return values[index]


_GETITEM = Rule(_getitem, ragged=True)

"""Rules: every op that pfp understands. A new op is one record in the module of its family.

rule            the record (Rule), the register (RULES), and a layer as a matrix product (Columns)
pointwise       channels that meet at the same index are dropped together
movement        elements move: the op itself is run on the labels
selection       elements are selected along one dimension
convolution     convolutions read channels and make new ones
products        linear layers, matrix products, attention and embeddings do so too
statistics      norms, pooling, reductions
"""

from __future__ import annotations

from typing import Any

from torch.fx.node import Node

from pfpcli.channels.rules import convolution, movement, pointwise, products, selection, statistics
from pfpcli.channels.rules.rule import RULES, Columns, Rule, into_weight
from pfpcli.graph.calls import is_pointwise

__all__ = [
    "RULES",
    "Columns",
    "Rule",
    "convolution",
    "find",
    "into_weight",
    "movement",
    "output_dim",
    "pointwise",
    "products",
    "selection",
    "statistics",
]

_POINTWISE = Rule(pointwise.pointwise, ragged=True)


def find(target: Any) -> Rule | None:
    """Return the rule of an op; None if there is none, and labels that reach the op have to be frozen."""
    rule = RULES.get(str(target))
    if rule is None and is_pointwise(target):
        return _POINTWISE
    if rule is None and str(target) == "<built-in function getitem>":
        return _GETITEM
    return rule


def output_dim(call: Node) -> int:
    """Return the dimension of a layer's result along which the channels that it makes lie."""
    rule = find(call.target)
    assert rule is not None
    return rule.made


def _getitem(flow: Any, values: Any, index: int) -> Any:
    """Take one of several results."""
    return values[index]


_GETITEM = Rule(_getitem, ragged=True)

"""Pointwise ops: the result at an index depends on the operands at that index, so their channels are tied.

An op that torch itself tags as pointwise needs no entry here, unless it clips.
"""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import torch
from torch.fx.node import Node
from torch.utils._pytree import tree_leaves

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import register
from pfpcli.graph.calls import bind


@register(
    "aten.dropout.default",
    "aten.feature_dropout.default",
    "aten.contiguous.default",
    "aten.clone.default",
    "aten.detach.default",
    "aten.alias.default",
    "aten.lift_fresh_copy.default",
    "aten.to.dtype",
    "aten.to.device",
    "aten.to.dtype_layout",
    "aten._to_copy.default",
    "aten.zeros_like.default",
    "aten.ones_like.default",
    "aten.full_like.default",
    "aten.empty_like.default",
    "aten.where.self",
    "aten.where.Scalar",
    "aten.where.ScalarOther",
    "aten.where.ScalarSelf",
    "aten.__and__.Tensor",
    "aten.__or__.Tensor",
    "aten.absolute.default",
    "aten.alpha_dropout.default",
    "aten.divide.Tensor",
    "aten.feature_alpha_dropout.default",
    "aten.floor_divide.default",
    "aten.hardswish.default",
    "aten.log_sigmoid.default",
    "aten.multiply.Tensor",
    "aten.negative.default",
    "aten.rsub.Tensor",
    "aten.softplus.default",
    "aten.subtract.Tensor",
    "aten.masked_fill.Scalar",
    "aten.masked_fill.Tensor",
    "aten.rrelu.default",
    "aten.fill.Scalar",
    "aten.fill.Tensor",
    "aten.copy.default",
    "aten.broadcast_tensors.default",
    "aten.expand_as.default",
    ragged=True,
)
def pointwise(flow: Flow, *args: Any, **kwargs: Any) -> Any:
    """Tie the operands along each dimension of the result; an operand that is broadcast there is left out."""
    operands = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Axes)]
    ragged = _ragged(flow, operands)
    if ragged is None:
        operands, ragged = [flow.unragged(x) for x in operands], {}
    dims = [dim for dim in range(len(flow.shape)) if dim not in ragged]
    result = replace(flow.result({dim: flow.join_broadcast(operands, dim) for dim in dims}), ragged=ragged)
    return result if isinstance(flow.node.meta["val"], torch.Tensor) else (result,) * len(flow.shapes)


def _ragged(flow: Flow, operands: list[Axes]) -> dict[int, Any] | None:
    """Return the ragged dimensions of the result; None if the operands' parts differ."""
    found: dict[int, Any] = {}
    for dim in range(len(flow.shape)):
        ends = flow.meeting(operands, dim)
        if not any(d in x.ragged for x, d in ends):
            continue
        full_rank = all(len(x.shape) == len(flow.shape) for x, _ in ends)
        if not full_rank or not flow.aligned(*ends):
            return None
        found[dim] = ends[0][0].ragged[dim]
    return found


def _limits(node: Node) -> tuple[float, float]:
    """Return the limits among the arguments of a call."""
    given = bind(node)
    low, high = (given.get(each, given.get(other)) for each, other in (("min", "min_val"), ("max", "max_val")))
    return -inf if low is None else float(low), inf if high is None else float(high)


register("aten.relu.default", clips=lambda node: (0.0, inf), ragged=True)(pointwise)
register("aten.relu6.default", clips=lambda node: (0.0, 6.0), ragged=True)(pointwise)
register(
    "aten.clamp.default",
    "aten.clamp_max.default",
    "aten.clamp_min.default",
    "aten.hardtanh.default",
    clips=_limits,
    ragged=True,
)(pointwise)


@register("aten.type_as.default")
def type_as(flow: Flow, x: Axes, *_: Any) -> Axes:
    """Pass the labels of x on: the second operand only gives the type."""
    return flow.result(dict(x.labels))


@register("aten.prelu.default")
def prelu(flow: Flow, x: Axes, weight: Axes) -> Axes:
    """Tie the slopes to the channels (dimension 1), unless one slope is shared by all."""
    labels: dict[int, Any] = dict(x.labels)
    if weight.shape and weight.shape[0] > 1:
        labels[1] = flow.join((x, 1), (weight, 0))
    return flow.result(labels)


@register("aten.glu.default")
def glu(flow: Flow, x: Axes, dim: int = -1) -> Any:
    """Tie the two halves of a dimension: one is multiplied with the sigmoid of the other."""
    dim = x.dim(dim)
    flow.tie_blocks(x.labels.get(dim), 2)
    return flow.moved(x, lambda labels: labels.narrow(dim, 0, x.shape[dim] // 2))


@register("aten.cumsum.default")
def cumsum(flow: Flow, x: Axes, dim: int, **_: Any) -> Axes:
    """Freeze the dimension that is summed along, and pass the other labels on."""
    dim = x.dim(dim)
    flow.freeze(x, f"summed along in {flow.node.target}", [dim])
    return flow.result({d: vector for d, vector in x.labels.items() if d != dim})

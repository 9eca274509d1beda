"""Ops whose result at a place depends on the operands at that place: what meets there lives and dies together."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch.utils._pytree import tree_leaves

from pfpcli.ops.rule import register

if TYPE_CHECKING:
    from torch import Tensor

    from pfpcli.labels import Axes, Flow


def is_axes(value: Any) -> bool:
    """Whether an argument of a `flow` stands for a tensor."""
    return hasattr(value, "labels")


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
    "aten.type_as.default",
    "aten.zeros_like.default",
    "aten.ones_like.default",
    "aten.full_like.default",
    "aten.empty_like.default",
    "aten.where.self",
    "aten.softplus.default",
    "aten.masked_fill.Scalar",
    "aten.masked_fill.Tensor",
    "aten.rrelu.default",
    "aten.fill.Scalar",
    "aten.fill.Tensor",
    "aten.copy.default",
    "aten.floor_divide.default",
    "aten.hardswish.default",
    "aten.log_sigmoid.default",
    "aten.rsub.Tensor",
    "aten.to.other",
    "aten.tril.default",
    "aten.triu.default",
    "aten.where.Scalar",
    "aten.where.ScalarOther",
    "aten.where.ScalarSelf",
    ragged=True,
)
def pointwise(flow: Flow, *args: Any, **kwargs: Any) -> Axes:
    """Broadcast the operands; along each dimension of the result, those that are not broadcast are joined."""
    operands = [value for value in tree_leaves((args, kwargs)) if is_axes(value)]
    ragged = _ragged(flow, operands)
    if ragged is None:
        operands, ragged = [flow.even(x) for x in operands], {}
    labels: dict[int, Tensor | None] = {}
    for dim in range(len(flow.shape)):
        if dim not in ragged:
            labels[dim] = flow.join(*_meeting(flow, operands, dim))
    return replace(flow.result(labels), ragged=ragged)


def _meeting(flow: Flow, operands: list[Axes], dim: int) -> list[tuple[Axes, int]]:
    """The operands that are not broadcast along a dimension of the result: those that are put no constraint on it."""
    rank, size = len(flow.shape), flow.shape[dim]
    ends = [(x, dim - rank + len(x.shape)) for x in operands]
    return [(x, d) for x, d in ends if d >= 0 and x.shape[d] == size > 1]


def _ragged(flow: Flow, operands: list[Axes]) -> dict[int, Any] | None:
    """The ragged dimensions of the result; None where they do not fit those of all operands."""
    found: dict[int, Any] = {}
    for dim in range(len(flow.shape)):
        ends = _meeting(flow, operands, dim)
        if not any(d in x.ragged for x, d in ends):
            continue
        full_rank = all(len(x.shape) == len(flow.shape) for x, _ in ends)
        if not full_rank or not flow.aligned(*ends):
            return None
        found[dim] = ends[0][0].ragged[dim]
    return found


@register("aten.prelu.default")
def prelu(flow: Flow, x: Axes, weight: Axes) -> Axes:
    """Slopes per channel (dimension 1), or one for all."""
    labels: dict[int, Tensor | None] = dict(x.labels)
    if weight.shape and weight.shape[0] > 1:
        labels[1] = flow.join((x, 1), (weight, 0))
    return flow.result(labels)


@register("aten.glu.default", "aten.cumsum.default", "aten.flip.default")
def untouched_dims_pass(flow: Flow, x: Axes, dim: Any = -1, **_: Any) -> Axes:
    """Elements mix along some dimensions: labels there are frozen, the others pass."""
    dims = {x.dim(d) for d in (dim if isinstance(dim, (list, tuple)) else [dim])}
    flow.freeze(x, f"mixed by {flow.node.target}", dims)
    return flow.result({d: vector for d, vector in x.labels.items() if d not in dims})

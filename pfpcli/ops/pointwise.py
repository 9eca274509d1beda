"""Ops whose result at a place depends on the operands at that place: what meets there lives and dies together."""

from __future__ import annotations

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
    "aten.expand_as.default",
    "aten.fill.Scalar",
    "aten.fill.Tensor",
    "aten.copy.default",
)
def pointwise(flow: Flow, *args: Any, **kwargs: Any) -> Axes:
    """Broadcast the operands; along each dimension of the result, those that are not broadcast are joined."""
    operands = [value for value in tree_leaves((args, kwargs)) if is_axes(value)]
    shape = flow.shape
    labels: dict[int, Tensor | None] = {}
    for dim in range(len(shape)):
        ends = [(x, dim - len(shape) + len(x.shape)) for x in operands]
        # a broadcast dimension puts no constraint on what it meets
        labels[dim] = flow.join(*[(x, d) for x, d in ends if d >= 0 and x.shape[d] == shape[dim] > 1])
    return flow.result(labels)


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

"""The record of an op, and the register of all records.

A rule says where labels go (`flow`), how the sizes among a call's arguments change when channels are cut (`resize`),
what the call costs (`macs`), and, for a layer with weights, how the call looks as a matrix product (`columns`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.labels import Axes
from pfpcli.channels.slicing import Slicing

#: `flow(flow, *args, **kwargs)` gets the call's arguments, with `Axes` for tensors, and returns the result's `Axes`.
FlowRule = Callable[..., Axes | tuple[Axes, ...]]
#: `sizes(node)` returns the shape of a node's tensor, in the original or in the cut network.
Sizes = Callable[[Node], tuple[int, ...]]
#: `resize(slicing, node, copy)` changes the target and the arguments of the copied call as the cut requires.
Resize = Callable[[Slicing, Node, Node], None]
#: `macs(sizes, node)` returns the multiply-adds of the call.
Macs = Callable[[Sizes, Node], int]
#: `columns(node, x, weight, patches)` returns the call as a matrix product, at some patches (int64[p]) or, without
#: them, at all.
ColumnsOf = Callable[..., "Columns"]
#: `limits(node)` returns the ends of an interval.
Limits = Callable[[Node], tuple[float, float]]


@dataclass(frozen=True)
class Rule:
    """All that pfp knows about one op.

    Attributes:
        flow: where the labels go.
        resize: adapts the call to a cut; None if no size is among its arguments.
        macs: multiply-adds of the call from the sizes of its operands and results; None means 0.
        columns: the call as a matrix product, see `Columns`; None if the call has no weights.
        operands: the positions, among the arguments of the op's schema, of the input, the weights and the bias, if any.
        made: the dimension of the result along which the channels that the call makes lie.
        clips: the interval that the op maps to itself, while it maps other values to its ends; None for other ops.
        exact: False if the call takes a statistic across channels, so that a cut changes it.
        ragged: whether `flow` handles ragged dimensions; otherwise it gets axes without them.
    """

    flow: FlowRule
    resize: Resize | None = None
    macs: Macs | None = None
    columns: ColumnsOf | None = None
    operands: tuple[int, ...] = (0, 1)
    made: int = -1
    clips: Limits | None = None
    exact: bool = True
    ragged: bool = False


@dataclass(frozen=True)
class Columns:
    """A layer as a batch of matrix products, one per group of a grouped convolution.

    out[n, g, o, p] = sum over j and r of weight[g, o, j, r] * x[n, g, j, r, p]

    Attributes:
        x: float[N, G, J, R, P]: the values of the J input channels of a group at the R kernel positions of patch p.
        weight: float[G, O, J, R].
    """

    x: Tensor
    weight: Tensor


def into_weight(values: Tensor, columns_of: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    """Reorder values (scores, masks, factors) of the elements of `Columns.weight` as the layer's own weight is.

    Each weight is one element of `Columns.weight`, so the product of the values with the Jacobian moves each value to
    its weight. A constant that the op multiplies its weights with is divided out.

    Args:
        values: float[G, O, J, R].
        columns_of: returns `Columns.weight` for a weight tensor.
        weight: the weight tensor of the layer.

    Returns:
        float of the shape of `weight`.
    """
    with torch.enable_grad():
        point = torch.zeros_like(weight, dtype=values.dtype, requires_grad=True)
        there = columns_of(point)
        (constant,) = torch.autograd.grad(there, point, torch.ones_like(there), retain_graph=True)
        (found,) = torch.autograd.grad(there, point, values.to(there.device))
    return found / constant


#: Overload, e.g. "aten.linear.default" -> its rule. Pointwise ops that torch tags as such need no entry.
RULES: dict[str, Rule] = {}


def register(
    *names: str,
    resize: Resize | None = None,
    macs: Macs | None = None,
    columns: ColumnsOf | None = None,
    operands: tuple[int, ...] = (0, 1),
    made: int = -1,
    clips: Limits | None = None,
    exact: bool = True,
    ragged: bool = False,
) -> Callable[[FlowRule], FlowRule]:
    """Decorate a function to be the `flow` of the named overloads; a name that has a rule already is refused."""

    def add(flow: FlowRule) -> FlowRule:
        rule = Rule(flow, resize, macs, columns, operands, made, clips, exact, ragged)
        for i, name in enumerate(names):
            if name in RULES or name in names[:i]:
                raise ValueError(f"{name} has a rule already")
        RULES.update(dict.fromkeys(names, rule))
        return flow

    return add


def add_constant(call: Node, value: Tensor) -> Node:
    """Store a constant beside a call of the cut graph; return the node that stands for it."""
    module, name = call.graph.owning_module, f"{call.name}_positions"
    assert module is not None
    module.register_buffer(name, value)
    with call.graph.inserting_before(call):
        return call.graph.get_attr(name)

"""What pfp knows about an op: one record, in one place.

A rule says where labels go (`flow`), how the call's own numbers change when channels are cut (`resize`), what the call
costs (`macs`), and, for layers with weights, how the call looks as a matrix product (`columns`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.labels import Axes
from pfpcli.channels.slicing import Slicing

#: `flow(flow, *args, **kwargs)` gets the call's arguments with `Axes` in the place of tensors and returns the result's.
FlowRule = Callable[..., Axes | tuple[Axes, ...]]
#: `sizes(node)` is the shape of a tensor-valued node, original or cut.
Sizes = Callable[[Node], tuple[int, ...]]


#: `resize(slicing, node, copy)` changes the copied call (target, arguments) to what a cut leaves of it.
Resize = Callable[[Slicing, Node, Node], None]


@dataclass(frozen=True)
class Rule:
    """Everything about one op.

    Attributes:
        flow: where the labels go.
        resize: adapts the call to a cut; None if no size is among its arguments.
        macs: multiply-adds of the call from the sizes of its operands and results; None counts as 0.
        columns: the call as a matrix product, see `Columns`; None where it has no weights.
        operands: where among the arguments of its schema are what it reads, its weights and its bias, if it has any.
        made: the dimension of its result along which the channels it makes lie.
        clips: the interval that the op maps to itself, whatever is outside to its ends; None for all other ops.
        exact: False where statistics are taken across channels, so that cutting changes them.
        ragged: whether `flow` can handle ragged dimensions; otherwise it sees them evened out.
    """

    flow: FlowRule
    resize: Resize | None = None
    macs: Callable[[Sizes, Node], int] | None = None
    columns: Callable[[Node, Tensor, Tensor], Columns] | None = None
    operands: tuple[int, ...] = (0, 1)
    made: int = -1
    clips: Callable[[Node], tuple[float, float]] | None = None
    exact: bool = True
    ragged: bool = False


@dataclass(frozen=True)
class Columns:
    """A layer as a batch of matrix products, one per group of a grouped convolution.

    out[n, g, o, p] = sum over j and r of weight[g, o, j, r] * x[n, g, j, r, p]

    Attributes:
        x: float[N, G, J, R, P]: what each of J input channels of a group shows at the R kernel positions of patch p.
        weight: float[G, O, J, R].
    """

    x: Tensor
    weight: Tensor


def into_weight(values: Tensor, columns_of: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    """What belongs to each weight (scores, masks as numbers, factors), in the order of the layer's own weight tensor.

    Every weight sits in exactly one place of `Columns.weight`, so a vector times the Jacobian brings each number back
    to its weight; a constant that the op multiplies its weights with is divided out.

    Args:
        values: float[G, O, J, R], one for each element of `Columns.weight`.
        columns_of: makes `Columns.weight` of a weight tensor.
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


RULES: dict[str, Rule] = {}


def add_constant(call: Node, value: Tensor) -> Node:
    """Give a call of the cut graph a new constant; returns the node that stands for it."""
    module, name = call.graph.owning_module, f"{call.name}_positions"
    assert module is not None
    module.register_buffer(name, value)
    with call.graph.inserting_before(call):
        return call.graph.get_attr(name)


def register(
    *names: str,
    resize: Resize | None = None,
    macs: Callable[[Sizes, Node], int] | None = None,
    columns: Callable[[Node, Tensor, Tensor], Columns] | None = None,
    operands: tuple[int, ...] = (0, 1),
    made: int = -1,
    exact: bool = True,
    ragged: bool = False,
) -> Callable[[FlowRule], FlowRule]:
    """Make a function the `flow` of the named overloads, e.g. "aten.linear.default"."""

    def add(flow: FlowRule) -> FlowRule:
        rule = Rule(flow, resize, macs, columns, operands, made, exact=exact, ragged=ragged)
        for name in names:
            if name in RULES:
                raise ValueError(f"{name} has a rule already")
            RULES[name] = rule
        return flow

    return add

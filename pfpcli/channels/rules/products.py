"""Linear layers, matrix products, attention and embeddings read channels and make new ones."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import Columns, Sizes, register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind
from pfpcli.graph.graph import is_constant

# Linear layers and matrix products -------------------------------------------------------------------------------


def _linear_macs(sizes: Sizes, node: Node) -> int:
    return math.prod(sizes(node)) * sizes(node.args[0])[-1]  # type: ignore[arg-type]


def linear_columns(node: Node, x: Tensor, weight: Tensor, patches: Tensor | None = None) -> Columns:
    """Return a linear layer as one matrix product; all dimensions between the batch and the channels are patches.

    Args:
        node: the call.
        x: float[N, ..., C_in].
        weight: float[C_out, C_in].
        patches: int64[p], the patches of `Columns.x`; None for all.
    """
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    if patches is not None:
        rows = rows[:, patches]
    return Columns(rows.transpose(1, 2)[:, None, :, None, :], weight[None, :, :, None])


@register("aten.linear.default", macs=_linear_macs, columns=linear_columns, operands=(0, 1, 2))
def linear(flow: Flow, x: Axes, weight: Axes, bias: Axes | None = None) -> Axes:
    """Read the last dimension of x and make channels: weight [C_out, C_in]."""
    last = len(x.shape) - 1
    made = flow.join((weight, 0), *([(bias, 0)] if bias is not None else []))
    flow.join((x, last), (weight, 1))
    # a single vector has no batch, so the layer cannot be scored
    layer = (flow.node.args[1], made) if last > 0 else ()
    flow.read(flow.node.args[0], x, last, *layer)  # type: ignore[arg-type]
    return flow.result({**x.labels, last: made})


def _product(flow: Flow, a: Axes, b: Axes, operands: tuple[Any, Any]) -> Axes:
    """Label a @ b: the dimensions that are summed over are tied, batch dimensions are broadcast."""
    rank = len(flow.shape)
    if not len(a.shape) == len(b.shape) == rank:
        a, b = flow.unragged(a), flow.unragged(b)
    inner_a, inner_b = len(a.shape) - 1, len(b.shape) - 2
    if not flow.aligned((a, inner_a), (b, inner_b)):
        a, b = flow.unragged(a, inner_a), flow.unragged(b, inner_b)
        flow.join((a, inner_a), (b, inner_b))
    if rank - 1 in b.ragged and inner_b in b.ragged[rank - 1].parts:
        b = flow.unragged(b)
    if rank - 2 in a.ragged:
        a = flow.unragged(a)
    made = b.labels.get(len(b.shape) - 1)
    # a stack of weights, one for each of many positions, cannot be scored as a layer
    layer = (operands[1], made) if len(b.shape) == 2 or not is_constant(operands[1]) else ()
    flow.read(operands[0], a, inner_a, *layer)
    labels: dict[int, Any] = {rank - 2: a.labels.get(len(a.shape) - 2), rank - 1: made}
    for dim in range(rank - 2):
        labels[dim] = flow.join_broadcast((a, b), dim)
    ragged = {rank - 1: b.ragged[rank - 1]} if rank - 1 in b.ragged else {}
    return replace(flow.result(labels), ragged=ragged)


def _product_columns(node: Node, x: Tensor, factor: Tensor, patches: Tensor | None = None) -> Columns:
    """Return a stack of products of activations, each as a group of its own.

    Args:
        node: the call.
        x: float[..., P, C].
        factor: float[..., O, C].
        patches: int64[p], the patches of `Columns.x`; None for all.
    """
    x, factor = x.flatten(0, -3), factor.flatten(0, -3)
    if patches is not None:
        x = x[:, patches]
    return Columns(x.mT[None, :, :, None, :], factor[..., None])


def _matmul_columns(node: Node, x: Tensor, weight: Tensor, patches: Tensor | None = None) -> Columns:
    columns = linear_columns if weight.dim() == 2 else _product_columns
    return columns(node, x, weight.mT, patches)


@register(
    "aten.matmul.default",
    "aten.bmm.default",
    "aten.mm.default",
    macs=_linear_macs,
    columns=_matmul_columns,
    ragged=True,
)
def matmul(flow: Flow, a: Axes, b: Axes) -> Axes:
    """Label a @ b, which sums over the last dimension of a and the last but one of b."""
    if min(len(a.shape), len(b.shape)) < 2:
        flow.freeze(a, f"a vector product in {flow.node.name}")
        flow.freeze(b, f"a vector product in {flow.node.name}")
        return flow.result({})
    return _product(flow, a, b, (flow.node.args[0], flow.node.args[1]))


def _addmm_columns(node: Node, x: Tensor, weight: Tensor, patches: Tensor | None = None) -> Columns:
    return _matmul_columns(node, x, weight * bind(node)["alpha"], patches)


def _addmm_macs(sizes: Sizes, node: Node) -> int:
    return math.prod(sizes(node)) * sizes(node.args[1])[-1]  # type: ignore[arg-type]


@register("aten.addmm.default", "aten.baddbmm.default", macs=_addmm_macs, columns=_addmm_columns, operands=(1, 2, 0))
def addmm(flow: Flow, bias: Axes, a: Axes, b: Axes, **_: Any) -> Axes:
    """Label bias + a @ b."""
    out = flow.unragged(_product(flow, a, b, (flow.node.args[1], flow.node.args[2])))
    return flow.result({dim: flow.join_broadcast((out, bias), dim) for dim in range(len(flow.shape))})


def _letters(equation: str) -> tuple[list[str], str]:
    """Return the letters of each operand's dimensions, and those of the result."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    once = sorted(letter for letter in set(terms) - {","} if terms.count(letter) == 1)
    return terms.split(","), result if arrow else "".join(once)


def _einsum_macs(sizes: Sizes, node: Node) -> int:
    terms, _ = _letters(str(node.args[0]))
    largest: dict[str, int] = {}
    operands: Any = node.args[1]
    for term, x in zip(terms, operands, strict=True):
        for letter, size in zip(term, sizes(x), strict=False):
            largest[letter] = max(size, largest.get(letter, 1))
    return math.prod(largest.values()) * (len(terms) - 1)


@register("aten.einsum.default", macs=_einsum_macs)
def einsum(flow: Flow, equation: str, operands: list[Axes], **_: Any) -> Axes:
    """Tie dimensions with the same letter; a letter that the result lacks is summed over."""
    terms, result = _letters(equation)
    if "." in equation or any(len(set(term)) < len(term) for term in terms):
        for x in operands:
            flow.freeze(x, f"an ellipsis or a diagonal in {flow.node.name}")
        return flow.result({})
    nodes: Any = flow.node.args[1]
    labels: dict[int, Any] = {}
    for letter in dict.fromkeys("".join(terms)):
        at = [(i, term.index(letter)) for i, term in enumerate(terms) if letter in term]
        size = max(operands[i].shape[dim] for i, dim in at)
        whole = [(i, dim) for i, dim in at if operands[i].shape[dim] == size]
        vector = flow.join(*[(operands[i], dim) for i, dim in whole])
        if letter in result:
            labels[result.index(letter)] = vector
        else:
            i, dim = whole[0]
            flow.read(nodes[i], operands[i], dim)
    return flow.result(labels)


# Attention -------------------------------------------------------------------------------------------------------


def _attention_macs(sizes: Sizes, node: Node) -> int:
    query, key, value = (sizes(each) for each in node.args[:3])  # type: ignore[arg-type]
    return math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])


def _resize_attention(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    width = given["query"].meta["val"].shape[-1]
    if given["scale"] is None and slicing.shape(given["query"])[-1] != width:
        # the default scale depends on the width; the network was trained with that of its original width
        rebind(copy, scale=width**-0.5)


@register(
    "aten.scaled_dot_product_attention.default",
    resize=_resize_attention,
    macs=_attention_macs,
    columns=_product_columns,
    ragged=True,
)
def attention(flow: Flow, query: Axes, key: Axes, value: Axes, mask: Axes | None = None, *_: Any, **__: Any) -> Axes:
    """Label softmax(q k^T) v: it sums over the widths of q and k, passes the width of v on, and ties heads."""
    rank = len(query.shape)
    if not flow.aligned((query, rank - 1), (key, rank - 1)):
        query, key = flow.unragged(query), flow.unragged(key)
        flow.join((query, rank - 1), (key, rank - 1))
    if rank - 1 in value.ragged and rank - 2 in value.ragged[rank - 1].parts:
        value = flow.unragged(value)
    flow.join((key, rank - 2), (value, rank - 2))
    for axes in (query, key, value):
        flow.freeze(axes, f"a position in {flow.node.name}", [rank - 2])
    operands = [query, key, value]
    if mask is not None:
        operands.append(mask)
        flow.freeze(mask, f"an attention mask in {flow.node.name}", range(len(mask.shape))[-2:])
    flow.read(flow.node.args[0], query, rank - 1, flow.node.args[1])  # type: ignore[arg-type]
    for dim in range(rank - 2):
        if {query.shape[dim], key.shape[dim], value.shape[dim]} > {flow.shape[dim]}:
            for axes in operands:
                flow.freeze(axes, f"shared among several heads in {flow.node.name}", [dim - rank + len(axes.shape)])
    labels: dict[int, Any] = {dim: flow.join_broadcast(operands, dim) for dim in range(rank - 2)}
    labels[rank - 1] = value.labels.get(rank - 1)
    return replace(flow.result(labels), ragged={d: r for d, r in value.ragged.items() if d == rank - 1})


@register("aten.embedding.default")
def embedding(flow: Flow, weight: Axes, indices: Axes, *_: Any) -> Axes:
    """Select rows of a table: the number of rows stays, the width may shrink."""
    flow.freeze(weight, "an index of an embedding", [0])
    flow.freeze(indices, "a list of positions")
    return flow.result({len(flow.shape) - 1: weight.labels.get(1)})

"""Ops that read channels and make new ones: convolutions, linear layers, matrix products, attention, embeddings."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import Columns, Sizes, register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind
from pfpcli.graph.graph import is_constant

# Convolutions ----------------------------------------------------------------------------------------------------

_CONVOLUTIONS = tuple(f"aten.conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding"))
_TRANSPOSED = ("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
_GENERAL = ("aten.convolution.default", "aten._convolution.default")


def _is_transposed(node: Node) -> bool:
    return bool(bind(node).get("transposed", "conv_transpose" in str(node.target)))


def _is_depthwise(channels: int, groups: int) -> bool:
    """One channel to a group; a single channel in one group is an ordinary convolution."""
    return groups > 1 and groups == channels


def _conv_macs(sizes: Sizes, node: Node) -> int:
    x, weight = sizes(node.args[0]), sizes(node.args[1])  # type: ignore[arg-type]
    positions = x if _is_transposed(node) else sizes(node)
    return math.prod(positions) * math.prod(weight[1:])


def _resize_conv(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    channels = given["input"].meta["val"].shape[1]
    # as many groups as the graph computes, e.g. a batch that was put into the channels: nothing is cut there
    if not isinstance(given["groups"], Node) and _is_depthwise(channels, given["groups"]):
        rebind(copy, groups=slicing.shape(given["input"])[1])


def _per_dim(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * dims if len(values) == 1 else values


def conv_columns(node: Node, x: Tensor, weight: Tensor) -> Columns:
    """A convolution as matrix products over the patches it sees.

    Args:
        node: the call.
        x: float[N, C_in, *spatial].
        weight: as the call takes it.
    """
    given = bind(node)
    dims = x.dim() - 2
    groups, kernel = given["groups"], list(weight.shape[2:])
    stride, dilation = _per_dim(given["stride"], dims), _per_dim(given["dilation"], dims)
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if _is_transposed(node):
        # the transposed convolution is the convolution of the input with zeros between its elements
        x = _with_zeros_between(x, stride)
        padding, extra = _per_dim(given["padding"], dims), _per_dim(given["output_padding"], dims)
        pads = [(s - p, s - p + e) for s, p, e in zip(span, padding, extra, strict=True)]
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flip(*range(3, 3 + dims))
        stride = [1] * dims
    else:
        pads = _paddings(given["padding"], span)
        weight = weight.unflatten(0, (groups, -1))
    x = F.pad(x, [amount for pair in reversed(pads) for amount in pair])
    patches = _patches(x, kernel, stride, dilation)
    return Columns(patches.unflatten(1, (groups, -1)), weight.flatten(3))


def _paddings(padding: Any, span: list[int]) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(span)
    if padding == "same":
        return [(s // 2, s - s // 2) for s in span]
    return [(p, p) for p in _per_dim(padding, len(span))]


def _with_zeros_between(x: Tensor, stride: list[int]) -> Tensor:
    sizes = [(n - 1) * s + 1 for n, s in zip(x.shape[2:], stride, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    places: tuple[Any, ...] = (..., *[slice(None, None, s) for s in stride])
    wide[places] = x
    return wide


def _patches(x: Tensor, kernel: list[int], stride: list[int], dilation: list[int]) -> Tensor:
    """float[N, C, R, P]: the R values each of the P windows sees of each channel."""
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        window = x.unfold(2 + i, d * (k - 1) + 1, s)
        x = window[..., ::d]
    dims = len(kernel)
    spatial, offsets = range(2, 2 + dims), range(2 + dims, 2 + 2 * dims)
    return x.permute(0, 1, *offsets, *spatial).flatten(2, 1 + dims).flatten(3)


@register(
    *_CONVOLUTIONS,
    *_TRANSPOSED,
    *_GENERAL,
    resize=_resize_conv,
    macs=_conv_macs,
    columns=conv_columns,
    operands=(0, 1, 2),
    made=1,
    ragged=True,
)
def convolution(flow: Flow, x: Axes, weight: Axes, bias: Axes | None = None, *_: Any, **__: Any) -> Axes:
    """Reads dimension 1 of x, makes channels; depthwise ones pass through.

    weight: [C_out, C_in/groups, *kernel], transposed: [C_in, C_out/groups, *kernel].
    """
    groups = bind(flow.node)["groups"]
    groups = groups.meta["val"] if isinstance(groups, Node) else groups
    transposed = _is_transposed(flow.node)
    x = flow.unragged(x)
    if flow.node.args[1].op != "get_attr":  # type: ignore[union-attr]
        weight = flow.unragged(weight)  # only a parameter can hold other channels in each group
    if len(x.shape) < len(weight.shape):
        for each in (x, weight, *([bias] if bias is not None else [])):
            flow.freeze(each, f"a convolution of a single sample in {flow.node.name}")
        return flow.result({})
    flow.freeze(weight, "a kernel position", range(2, len(weight.shape)))
    flow.freeze(x, f"convolved over in {flow.node.name}", range(2, len(x.shape)))
    if _is_depthwise(x.shape[1], groups):
        made = _depthwise(flow, x, weight, groups, transposed)
    else:
        made = _grouped(flow, x, weight, groups, transposed)
    if bias is not None:
        made = flow.join_vector(made, bias)
    return flow.result({0: x.labels.get(0), 1: made})


def _depthwise(flow: Flow, x: Axes, weight: Axes, groups: int, transposed: bool) -> Tensor | None:
    """Each channel makes its own outputs, which go when it goes."""
    outputs = flow.shape[1]
    if transposed and outputs != groups:
        flow.freeze(weight, "a transposed depthwise convolution that multiplies channels")
        flow.freeze(x, "a transposed depthwise convolution that multiplies channels", [1])
        return None
    if 1 not in x.labels:
        flow.freeze(weight, f"joined to {x.origin}", [0])
        return None
    return flow.join_vector(x.labels[1].repeat_interleave(outputs // groups), weight)


def _grouped(flow: Flow, x: Axes, weight: Axes, groups: int, transposed: bool) -> Tensor | None:
    """Ordinary and grouped: the groups have to stay equally wide, on both sides."""
    into, out = (0, 1) if transposed else (1, 0)
    if groups == 1:
        flow.join((x, 1), (weight, into))
        made = weight.labels.get(out)
    else:
        made = _among_groups(flow, x, weight, groups, transposed)
        flow.balance_blocks(made, groups)
        flow.balance_blocks(x.labels.get(1), groups)
    flow.read(flow.node.args[0], x, 1, flow.node.args[1], made)  # type: ignore[arg-type]
    return made


def _among_groups(flow: Flow, x: Axes, weight: Axes, groups: int, transposed: bool) -> Tensor | None:
    """Dimension 1 of the weight stands for other channels in each group; returns the labels of what is made.

    Ordinarily it is what is read, transposed it is what is made; its parts lie along dimension 0.
    """
    if transposed:
        flow.join((x, 1), (weight, 0))
        channels = flow.store.fresh(groups * weight.shape[1]) if 1 not in weight.ragged else None
    else:
        channels = x.labels.get(1)
        if channels is None:
            flow.freeze(weight, f"joined to {x.origin}", [1])
            return weight.labels.get(0)
    held = flow.split_parameter(flow.node.args[1], weight, channels, groups)  # type: ignore[arg-type]
    return held if transposed else weight.labels.get(0)


# Linear layers and matrix products -------------------------------------------------------------------------------


def _linear_macs(sizes: Sizes, node: Node) -> int:
    return math.prod(sizes(node)) * sizes(node.args[0])[-1]  # type: ignore[arg-type]


def linear_columns(node: Node, x: Tensor, weight: Tensor) -> Columns:
    """A linear layer as one matrix product; leading dimensions other than the batch are patches.

    Args:
        node: the call.
        x: float[N, ..., C_in].
        weight: float[C_out, C_in].
    """
    rows = x.reshape(x.shape[0], -1, x.shape[-1])
    return Columns(rows.transpose(1, 2)[:, None, :, None, :], weight[None, :, :, None])


@register("aten.linear.default", macs=_linear_macs, columns=linear_columns, operands=(0, 1, 2))
def linear(flow: Flow, x: Axes, weight: Axes, bias: Axes | None = None) -> Axes:
    """Reads the last dimension of x, makes channels: weight [C_out, C_in]."""
    last = len(x.shape) - 1
    made = flow.join((weight, 0), *([(bias, 0)] if bias is not None else []))
    flow.join((x, last), (weight, 1))
    # a single vector has no batch: nothing to score it on
    layer = (flow.node.args[1], made) if last > 0 else ()
    flow.read(flow.node.args[0], x, last, *layer)  # type: ignore[arg-type]
    return flow.result({**x.labels, last: made})


def _product(flow: Flow, a: Axes, b: Axes, operands: tuple[Any, Any]) -> Axes:
    """A @ b with batch dimensions broadcast; what is contracted goes together."""
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
    # a stack of weights, one for each of many places, is no layer that can be scored
    layer = (operands[1], made) if len(b.shape) == 2 or not is_constant(operands[1]) else ()
    flow.read(operands[0], a, inner_a, *layer)
    labels: dict[int, Any] = {rank - 2: a.labels.get(len(a.shape) - 2), rank - 1: made}
    for dim in range(rank - 2):
        labels[dim] = flow.join_broadcast((a, b), dim)
    ragged = {rank - 1: b.ragged[rank - 1]} if rank - 1 in b.ragged else {}
    return replace(flow.result(labels), ragged=ragged)


def _product_columns(node: Node, x: Tensor, factor: Tensor) -> Columns:
    """A stack of products of activations, each a group of its own.

    Args:
        node: the call.
        x: float[..., P, C].
        factor: float[..., O, C].
    """
    x, factor = x.flatten(0, -3), factor.flatten(0, -3)
    return Columns(x.mT[None, :, :, None, :], factor[..., None])


def _matmul_columns(node: Node, x: Tensor, weight: Tensor) -> Columns:
    return linear_columns(node, x, weight.mT) if weight.dim() == 2 else _product_columns(node, x, weight.mT)


@register(
    "aten.matmul.default",
    "aten.bmm.default",
    "aten.mm.default",
    macs=_linear_macs,
    columns=_matmul_columns,
    ragged=True,
)
def matmul(flow: Flow, a: Axes, b: Axes) -> Axes:
    """A @ b: reads the last dimension of a and the last but one of b."""
    if min(len(a.shape), len(b.shape)) < 2:
        flow.freeze(a, f"a vector product in {flow.node.name}")
        flow.freeze(b, f"a vector product in {flow.node.name}")
        return flow.result({})
    return _product(flow, a, b, (flow.node.args[0], flow.node.args[1]))


def _addmm_columns(node: Node, x: Tensor, weight: Tensor) -> Columns:
    return _matmul_columns(node, x, weight * bind(node)["alpha"])


def _addmm_macs(sizes: Sizes, node: Node) -> int:
    return math.prod(sizes(node)) * sizes(node.args[1])[-1]  # type: ignore[arg-type]


@register("aten.addmm.default", "aten.baddbmm.default", macs=_addmm_macs, columns=_addmm_columns, operands=(1, 2, 0))
def addmm(flow: Flow, bias: Axes, a: Axes, b: Axes, **_: Any) -> Axes:
    """Bias + a @ b."""
    out = flow.unragged(_product(flow, a, b, (flow.node.args[1], flow.node.args[2])))
    return flow.result({dim: flow.join_broadcast((out, bias), dim) for dim in range(len(flow.shape))})


def _letters(equation: str) -> tuple[list[str], str]:
    """The letters of each operand's dimensions and of the result's."""
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
    """Dimensions with the same letter go together; a letter that the result lacks is summed away."""
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
        # the default scale follows the width; the network was trained with the one it had
        rebind(copy, scale=width**-0.5)


@register(
    "aten.scaled_dot_product_attention.default",
    resize=_resize_attention,
    macs=_attention_macs,
    columns=_product_columns,
    ragged=True,
)
def attention(flow: Flow, query: Axes, key: Axes, value: Axes, mask: Axes | None = None, *_: Any, **__: Any) -> Axes:
    """softmax(q k^T) v: widths of q and k are contracted, the width of v passes, heads go together."""
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
    """Rows of a table: as many rows as there are indices to name them, any width."""
    flow.freeze(weight, "an index of an embedding", [0])
    flow.freeze(indices, "a list of positions")
    return flow.result({len(flow.shape) - 1: weight.labels.get(1)})

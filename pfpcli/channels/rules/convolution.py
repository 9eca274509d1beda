"""Convolutions read channels and make new ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import Columns, Sizes, register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind

_CONVOLUTIONS = tuple(f"aten.conv{n}d.{kind}" for n in (1, 2, 3) for kind in ("default", "padding"))
_TRANSPOSED = ("aten.conv_transpose1d.default", "aten.conv_transpose2d.input", "aten.conv_transpose3d.input")
_GENERAL = ("aten.convolution.default", "aten._convolution.default")


def _is_transposed(node: Node) -> bool:
    return bool(bind(node).get("transposed", "conv_transpose" in str(node.target)))


def _is_depthwise(channels: int, groups: int) -> bool:
    """Whether each group has one channel; a single channel in a single group is an ordinary convolution."""
    return groups > 1 and groups == channels


def _conv_macs(sizes: Sizes, node: Node) -> int:
    x, weight = sizes(node.args[0]), sizes(node.args[1])  # type: ignore[arg-type]
    positions = x if _is_transposed(node) else sizes(node)
    return math.prod(positions) * math.prod(weight[1:])


def _resize_conv(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    channels = given["input"].meta["val"].shape[1]
    # if the graph computes the number of groups (a batch that was moved into the channels), no channel is cut
    if not isinstance(given["groups"], Node) and _is_depthwise(channels, given["groups"]):
        rebind(copy, groups=slicing.shape(given["input"])[1])


def _per_dim(value: Any, dims: int) -> list[int]:
    values = list(value) if isinstance(value, (list, tuple)) else [value]
    return values * dims if len(values) == 1 else values


def conv_columns(node: Node, x: Tensor, weight: Tensor, patches: Tensor | slice | None = None) -> Columns:
    """Return a convolution as matrix products over its patches.

    Args:
        node: the call.
        x: float[N, C_in, *spatial].
        weight: the weight argument of the call.
        patches: int64[p] or a range, the patches of `Columns.x`; None for all. For a range, only the rows of the map
            that it reads are touched.
    """
    given = bind(node)
    dims = x.dim() - 2
    groups, kernel = given["groups"], list(weight.shape[2:])
    stride, dilation = _per_dim(given["stride"], dims), _per_dim(given["dilation"], dims)
    span = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    apart = [1] * dims
    if _is_transposed(node):
        # a transposed convolution is a convolution of the input with zeros between its elements
        padding, extra = _per_dim(given["padding"], dims), _per_dim(given["output_padding"], dims)
        pads = [(s - p, s - p + e) for s, p, e in zip(span, padding, extra, strict=True)]
        weight = weight.unflatten(0, (groups, -1)).transpose(1, 2).flip(*range(3, 3 + dims))
        apart, stride = stride, apart
    else:
        pads = _paddings(given["padding"], span)
        weight = weight.unflatten(0, (groups, -1))
    ends = [(-low, (n - 1) * a + 1 + high) for n, a, (low, high) in zip(x.shape[2:], apart, pads, strict=True)]
    if isinstance(patches, slice):
        made = [(high - low - s - 1) // step + 1 for (low, high), s, step in zip(ends, span, stride, strict=True)]
        patches, ends[0] = _stripe(patches, made, ends[0][0], stride[0], span[0])
    found = _patches(_spread(x, apart, ends), kernel, stride, dilation, patches)
    return Columns(found.unflatten(1, (groups, -1)), weight.flatten(3))


def _paddings(padding: Any, span: list[int]) -> list[tuple[int, int]]:
    if padding == "valid":
        return [(0, 0)] * len(span)
    if padding == "same":
        return [(s // 2, s - s // 2) for s in span]
    return [(p, p) for p in _per_dim(padding, len(span))]


def _stripe(patches: slice, made: list[int], low: int, stride: int, span: int) -> tuple[slice, tuple[int, int]]:
    """Return where some patches are in the stripe of the map that holds them, and what that stripe reads.

    Args:
        patches: the range of patches.
        made: the sizes of the map.
        low: the place, in its first dimension, where the first window begins.
        stride: the distance between windows.
        span: the distance between the first and the last element of a window.
    """
    row = math.prod(made[1:])
    first, last = patches.start // row, -(-min(patches.stop, row * made[0]) // row)
    inside = slice(patches.start - first * row, patches.stop - first * row)
    return inside, (low + first * stride, low + (last - 1) * stride + span + 1)


def _spread(x: Tensor, apart: list[int], ends: list[tuple[int, int]]) -> Tensor:
    """Return a part of the input, which may reach beyond it, with zeros between its elements and around it.

    Args:
        x: float[N, C, *spatial].
        apart: for each spatial dimension the distance between neighbouring elements; 1 for no zeros between them.
        ends: for each spatial dimension where the part begins and ends; the first element is at 0.
    """
    into: list[Any] = [...]
    taken: list[Any] = [...]
    for n, step, (low, high) in zip(x.shape[2:], apart, ends, strict=True):
        first = min(n, max(0, -(-low // step)))
        last = max(first, min(n, -(-high // step)))
        taken.append(slice(first, last))
        into.append(slice(first * step - low, last * step - low, step))
    part = x[tuple(taken)]
    sizes = [high - low for low, high in ends]
    if part.shape[2:] == torch.Size(sizes):
        return part
    found = x.new_zeros(*x.shape[:2], *sizes)
    found[tuple(into)] = part
    return found


def _patches(
    x: Tensor, kernel: list[int], stride: list[int], dilation: list[int], wanted: Tensor | slice | None
) -> Tensor:
    """Return the R values of each channel in each of the P windows, or in those that are wanted: float[N, C, R, P]."""
    for i, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        window = x.unfold(2 + i, d * (k - 1) + 1, s)
        x = window[..., ::d]
    dims = len(kernel)
    spatial, offsets = range(2, 2 + dims), range(2 + dims, 2 + 2 * dims)
    windows = x.permute(0, 1, *offsets, *spatial)
    if wanted is None or isinstance(wanted, slice):
        return windows.flatten(2, 1 + dims).flatten(3)[..., wanted or slice(None)]
    # x is still a view: only the wanted windows are copied
    places: Any = (..., *torch.unravel_index(wanted, windows.shape[2 + dims :]))
    return windows[places].flatten(2, 1 + dims)


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
    """Read dimension 1 of x and make channels; a depthwise convolution passes the labels of x on.

    weight: [C_out, C_in/groups, *kernel], transposed: [C_in, C_out/groups, *kernel].
    """
    groups = bind(flow.node)["groups"]
    groups = groups.meta["val"] if isinstance(groups, Node) else groups
    transposed = _is_transposed(flow.node)
    x = flow.unragged(x)
    if flow.node.args[1].op != "get_attr":  # type: ignore[union-attr]
        weight = flow.unragged(weight)  # only a parameter can have other labels in each group
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
    """Label outputs that are each made from one channel, and dropped with it."""
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
    """Label the outputs of an ordinary or a grouped convolution; its groups stay equally wide on both sides."""
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
    """Give dimension 1 of the weight other labels in each group, and return the labels of the outputs.

    Dimension 1 holds the channels that are read; those that are made if the convolution is transposed. The groups lie
    along dimension 0.
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

"""Ops that move elements: the op itself is run on the labels, so no rule can get the movement wrong.

The rules here only say how the sizes among a call's arguments change when channels are cut.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind

aten = torch.ops.aten


def run_on_labels(flow: Flow, x: Axes, *args: Any, **kwargs: Any) -> Any:
    """Run the op on the labels of its first operand."""
    return flow.moved(x, lambda labels: flow.node.target(labels, *args, **kwargs))  # type: ignore[operator]


register(
    "aten.flatten.using_ints",
    "aten.flip.default",
    "aten.mT.default",
    "aten.moveaxis.int",
    "aten.movedim.int",
    "aten.movedim.intlist",
    "aten.numpy_T.default",
    "aten.permute.default",
    "aten.pixel_shuffle.default",
    "aten.pixel_unshuffle.default",
    "aten.repeat.default",
    "aten.swapaxes.default",
    "aten.swapdims.default",
    "aten.t.default",
    "aten.tile.default",
    "aten.transpose.int",
    "aten.unsqueeze.default",
    ragged=True,
)(run_on_labels)


@register("aten.channel_shuffle.default")
def channel_shuffle(flow: Flow, x: Axes, groups: int) -> Any:
    """Tie the channels at the same index of all groups, because the op interleaves the groups."""
    flow.tie_blocks(x.labels.get(1), groups)
    return run_on_labels(flow, x, groups)


def _resize_squeeze(slicing: Slicing, node: Node, copy: Node) -> None:
    """Squeeze the same dimensions as before, and none that only the cut leaves with size 1."""
    given = bind(node)
    x = given["self"]
    shape = x.meta["val"].shape
    dims = given.get("dim", range(len(shape)))
    dims = {dim % len(shape) for dim in (dims if not isinstance(dims, int) else [dims])}
    if any(slicing.shape(x)[dim] == 1 != shape[dim] for dim in dims):
        squeezed = sorted(dim for dim in dims if shape[dim] == 1)
        if squeezed:
            copy.target, copy.args, copy.kwargs = aten.squeeze.dims, (copy.args[0], squeezed), {}
        else:
            copy.target, copy.args, copy.kwargs = aten.clone.default, (copy.args[0],), {}


register("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", resize=_resize_squeeze, ragged=True)(
    run_on_labels
)


# Sizes among the arguments ---------------------------------------------------------------------------------------


def _resize_sizes(slicing: Slicing, node: Node, copy: Node, name: str = "size", first: int = 0) -> None:
    """Replace a list of sizes, one per dimension of the result from `first` on, by the sizes after the cut."""
    sizes = list(bind(copy)[name])
    for i, size in enumerate(sizes):
        left = slicing.shape(node)[first + i]
        if left == slicing.axes(node).shape[first + i] or size == -1:
            continue
        # a size that the graph computes cannot be edited, so torch has to infer it
        sizes[i] = -1 if isinstance(size, Node) else left
    rebind(copy, **{name: sizes})


def _resize_unflatten(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    _resize_sizes(slicing, node, copy, "sizes", given["dim"] % given["self"].meta["val"].dim())


@register("aten.view.default", "aten._unsafe_view.default", resize=_resize_sizes, ragged=True)
def view(flow: Flow, x: Axes, size: list[int]) -> Axes:
    """Reshape the labels: they are expanded without copies, so they may not allow the view that the tensor allows."""
    return flow.moved(x, lambda labels: labels.reshape(size))  # type: ignore[no-any-return]


register("aten.expand.default", resize=_resize_sizes, ragged=True)(run_on_labels)
register(
    "aten.reshape.default", resize=lambda slicing, node, copy: _resize_sizes(slicing, node, copy, "shape"), ragged=True
)(run_on_labels)
register("aten.unflatten.int", resize=_resize_unflatten, ragged=True)(run_on_labels)


@register("aten.reshape_as.default", "aten.view_as.default")
def reshape_as(flow: Flow, x: Axes, other: Axes) -> Axes:
    """Reshape to the sizes of another tensor, which is tied to the result."""
    moved = flow.moved(x, lambda labels: labels.reshape(flow.shape))
    return flow.result({dim: flow.join((moved, dim), (other, dim)) for dim in range(len(flow.shape))})


def _resize_repeated(slicing: Slicing, node: Node, copy: Node) -> None:
    if bind(node)["output_size"] is not None:
        rebind(copy, output_size=None)


register("aten.repeat_interleave.self_int", resize=_resize_repeated)(run_on_labels)


@register(
    "aten.full.default",
    "aten.new_full.default",
    "aten.new_ones.default",
    "aten.new_zeros.default",
    "aten.ones.default",
    "aten.zeros.default",
    resize=_resize_sizes,
)
def constant(flow: Flow, *_: Any, **__: Any) -> Axes:
    """Label a tensor of one value: each dimension can be cut to the size of the tensor that it meets."""
    given = bind(flow.node)["size"]
    literal = [dim for dim, size in enumerate(given) if not isinstance(size, Node)]
    return flow.result({dim: flow.store.fresh(given[dim]) for dim in literal})


# Windows ---------------------------------------------------------------------------------------------------------


@register("aten.unfold.default")
def unfold(flow: Flow, x: Axes, dim: int, size: int, step: int) -> Axes:
    """Freeze the dimension that windows are taken over."""
    flow.freeze(x, f"windows in {flow.node.name}", [x.dim(dim)])
    rest = Axes(x.shape, {d: v for d, v in x.labels.items() if d != x.dim(dim)}, x.origin)
    return flow.moved(rest, lambda labels: labels.unfold(dim, size, step))  # type: ignore[no-any-return]


@register("aten.im2col.default")
def im2col(flow: Flow, x: Axes, kernel: list[int], *_: Any) -> Axes:
    """Label the step from [N, C, H, W] to [N, C * kernel positions, windows]."""
    if len(x.shape) < 4:
        flow.freeze(x, f"windows of a single sample in {flow.node.name}")
        return flow.result({})
    flow.freeze(x, f"windows in {flow.node.name}", (2, 3))
    channels = x.labels.get(1)
    return flow.result({0: x.labels.get(0), 1: None if channels is None else _each(channels, math.prod(kernel))})


@register("aten.col2im.default")
def col2im(flow: Flow, x: Axes, size: list[int], kernel: list[int], *_: Any) -> Axes:
    """Label the step from [N, C * kernel positions, windows] to [N, C, H, W]; all positions of a channel are tied."""
    if len(x.shape) < 3:
        flow.freeze(x, f"windows of a single sample in {flow.node.name}")
        return flow.result({})
    flow.freeze(x, f"windows in {flow.node.name}", [2])
    channels = x.labels.get(1)
    if channels is not None:
        channels = channels[:: math.prod(kernel)]
        flow.store.tie(x.labels[1], _each(channels, math.prod(kernel)))
    return flow.result({0: x.labels.get(0), 1: channels})


def _each(vector: Tensor, times: int) -> Tensor:
    return vector.repeat_interleave(times)


# Joining and padding ---------------------------------------------------------------------------------------------


@register("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(flow: Flow, tensors: list[Axes], dim: int = 0) -> Axes:
    """Concatenate the labels along `dim`, and tie the operands along every other dimension."""
    tensors = [x for x in tensors if x.shape != (0,)]
    dim = tensors[0].dim(dim)
    labels = {d: flow.join(*[(x, d) for x in tensors]) for d in range(len(flow.shape)) if d != dim}
    if any(dim in x.labels for x in tensors):
        parts = [x.labels.get(dim, torch.zeros(x.shape[dim], dtype=torch.int64)) for x in tensors]
        labels[dim] = torch.cat(parts)
    return flow.result(labels)


@register("aten.stack.default")
def stack(flow: Flow, tensors: list[Axes], dim: int = 0) -> Axes:
    """Add a dimension of fixed size, and tie the operands along every other dimension."""
    dim %= len(flow.shape)
    labels = {d + (d >= dim): flow.join(*[(x, d) for x in tensors]) for d in range(len(tensors[0].shape))}
    return flow.result(labels)


def _padding(node: Node, pad: list[int]) -> dict[int, tuple[int, int]]:
    """Return dimension -> (elements added before, after), from torch's list, which starts at the last dimension."""
    last = node.meta["val"].dim() - 1
    return {last - i: (pad[2 * i], pad[2 * i + 1]) for i in range(len(pad) // 2) if any(pad[2 * i : 2 * i + 2])}


def _resize_pad(slicing: Slicing, node: Node, copy: Node) -> None:
    pad = list(bind(copy)["pad"])
    for dim, (before, after) in _padding(node, pad).items():
        mask = slicing.mask(node, dim)
        if mask is not None:
            at = 2 * (node.meta["val"].dim() - 1 - dim)
            pad[at], pad[at + 1] = int(mask[:before].sum()), int(mask[len(mask) - after :].sum())
    rebind(copy, pad=pad)


@register("aten.constant_pad_nd.default", "aten.pad.default", resize=_resize_pad)
def pad(flow: Flow, x: Axes, pad: list[int], *args: Any, **kwargs: Any) -> Axes:
    """Give padded channels labels of their own: they may be dropped with the channels that they are added to."""
    given = bind(flow.node)
    labels: dict[int, Any] = dict(x.labels)
    for dim, (before, after) in _padding(flow.node, pad).items():
        if dim not in labels:
            continue
        if given.get("mode", "constant") != "constant" or before < 0 or after < 0:
            flow.freeze(x, f"padded in {flow.node.name}", [dim])
            labels[dim] = None
        else:
            labels[dim] = torch.cat([flow.store.fresh(before), labels[dim], flow.store.fresh(after)])
    return flow.result(labels)


@register("aten.meshgrid.indexing")
def fixed(flow: Flow, *args: Any, **_: Any) -> tuple[Axes, ...]:
    """Freeze the operands: the grids keep their sizes."""
    for value in args[0]:
        flow.freeze(value, f"positions of a grid in {flow.node.name}")
    return tuple(Axes(shape) for shape in flow.shapes)

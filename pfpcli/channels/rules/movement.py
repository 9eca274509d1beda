"""Ops that move elements: the op itself is run on the labels, so no rule can get the movement wrong.

What is written down here is only how the sizes among a call's arguments change when channels are cut.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.rule import add_constant, register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind

aten = torch.ops.aten


def _run_on_labels(flow: Flow, x: Axes, *args: Any, **kwargs: Any) -> Any:
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
)(_run_on_labels)


@register("aten.channel_shuffle.default")
def channel_shuffle(flow: Flow, x: Axes, groups: int) -> Any:
    """Channels are dealt out by their position in equal groups, so position j of all groups is tied."""
    flow.tie_blocks(x.labels.get(1), groups)
    return _run_on_labels(flow, x, groups)


def _resize_squeeze(slicing: Slicing, node: Node, copy: Node) -> None:
    """A dimension that a cut leaves at size 1 is not one of those that were squeezed."""
    given = bind(node)
    x = given["self"]
    shape = x.meta["val"].shape
    dims = given.get("dim", range(len(shape)))
    dims = {dim % len(shape) for dim in (dims if not isinstance(dims, int) else [dims])}
    if any(slicing.shape(x)[dim] == 1 != shape[dim] for dim in dims):
        gone = sorted(dim for dim in dims if shape[dim] == 1)
        if gone:
            copy.target, copy.args, copy.kwargs = aten.squeeze.dims, (copy.args[0], gone), {}
        else:
            copy.target, copy.args, copy.kwargs = aten.clone.default, (copy.args[0],), {}


register("aten.squeeze.default", "aten.squeeze.dim", "aten.squeeze.dims", resize=_resize_squeeze, ragged=True)(
    _run_on_labels
)


# Sizes among the arguments ---------------------------------------------------------------------------------------


def _resize_sizes(slicing: Slicing, node: Node, copy: Node, name: str = "size", first: int = 0) -> None:
    """A list of sizes, one per dimension of the result from `first` on, becomes the sizes that are left."""
    sizes = list(bind(copy)[name])
    for i, size in enumerate(sizes):
        left = slicing.shape(node)[first + i]
        if left == slicing.axes(node).shape[first + i] or size == -1:
            continue
        # a size that the graph computes cannot be edited: torch works it out
        sizes[i] = -1 if isinstance(size, Node) else left
    rebind(copy, **{name: sizes})


def _resize_unflatten(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    _resize_sizes(slicing, node, copy, "sizes", given["dim"] % given["self"].meta["val"].dim())


@register("aten.view.default", "aten._unsafe_view.default", resize=_resize_sizes, ragged=True)
def view(flow: Flow, x: Axes, size: list[int]) -> Axes:
    """As reshape: labels are spread without copies, so a view of the tensor may not be a view of its labels."""
    return flow.moved(x, lambda labels: labels.reshape(size))  # type: ignore[no-any-return]


register("aten.expand.default", resize=_resize_sizes, ragged=True)(_run_on_labels)
register(
    "aten.reshape.default", resize=lambda slicing, node, copy: _resize_sizes(slicing, node, copy, "shape"), ragged=True
)(_run_on_labels)
register("aten.unflatten.int", resize=_resize_unflatten, ragged=True)(_run_on_labels)


@register("aten.reshape_as.default", "aten.view_as.default")
def reshape_as(flow: Flow, x: Axes, other: Axes) -> Axes:
    """A reshape to the sizes of another tensor, which have to shrink alike."""
    moved = flow.moved(x, lambda labels: labels.reshape(flow.shape))
    return flow.result({dim: flow.join((moved, dim), (other, dim)) for dim in range(len(flow.shape))})


def _resize_repeated(slicing: Slicing, node: Node, copy: Node) -> None:
    if bind(node)["output_size"] is not None:
        rebind(copy, output_size=None)


register("aten.repeat_interleave.self_int", resize=_resize_repeated)(_run_on_labels)


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
    """A tensor of one value: each dimension can be cut to the size of what it meets."""
    given = bind(flow.node)["size"]
    literal = [dim for dim, size in enumerate(given) if not isinstance(size, Node)]
    return flow.result({dim: flow.store.fresh(given[dim]) for dim in literal})


# Picking along one dimension -------------------------------------------------------------------------------------


def _left(mask: NDArray[np.bool_], picked: Any) -> list[int]:
    """Where the picked positions end up among those that stay; picked ones that go are left out."""
    picked = np.asarray(picked)
    return (np.cumsum(mask) - 1)[picked[mask[picked]]].tolist()  # type: ignore[no-any-return]


def _select_indices(copy: Node, dim: int, indices: list[int]) -> None:
    """Turn a call into index_select of the positions that are left."""
    index = add_constant(copy, torch.tensor(indices, dtype=torch.int64))
    copy.target, copy.args, copy.kwargs = aten.index_select.default, (copy.args[0], dim, index), {}


def _resize_slice(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is None or mask.all():
        return
    picked = range(len(mask))[slice(given["start"], given["end"], given["step"])]
    if given["step"] == 1:
        start, stop = int(mask[: picked.start].sum()), int(mask[: picked.stop].sum())
        rebind(copy, start=start, end=stop)
    else:
        _select_indices(copy, given["dim"], _left(mask, picked))


def _resize_narrow(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is not None:
        start = given["start"] % len(mask)
        stop = start + given["length"]
        rebind(copy, start=int(mask[:start].sum()), length=int(mask[start:stop].sum()))


def _resize_select(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is not None:
        rebind(copy, index=int(mask[: given["index"] % len(mask)].sum()))


register("aten.slice.Tensor", resize=_resize_slice)(_run_on_labels)
register("aten.narrow.default", resize=_resize_narrow)(_run_on_labels)
register("aten.select.int", resize=_resize_select, ragged=True)(_run_on_labels)


def _resize_slice_scatter(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is not None:
        picked = range(len(mask))[slice(given["start"], given["end"])]
        rebind(copy, start=int(mask[: picked.start].sum()), end=int(mask[: picked.stop].sum()))


@register("aten.slice_scatter.default", resize=_resize_slice_scatter)
def slice_scatter(flow: Flow, x: Axes, source: Axes, *_: Any, **__: Any) -> Axes:
    """X with a slice of it written over: the slice goes together with what is written."""
    given = bind(flow.node)
    dim, step = x.dim(given["dim"]), given["step"]
    if step != 1:
        flow.freeze(x, f"written over in steps in {flow.node.name}", [dim])
    labels: dict[int, Any] = {d: flow.join((x, d), (source, d)) for d in range(len(x.shape)) if d != dim}
    if dim in x.labels or dim in source.labels:
        whole = x.labels.get(dim, torch.zeros(x.shape[dim], dtype=torch.int64))
        written = whole[slice(given["start"], given["end"], step)]
        flow.join_vector(written, Axes((source.shape[dim],), _only(source, dim), source.origin))
        labels[dim] = x.labels.get(dim)
    return flow.result(labels)


@register("aten.select_scatter.default")
def select_scatter(flow: Flow, x: Axes, source: Axes, dim: int, index: int) -> Axes:
    """X with one index of a dimension written over."""
    dim = x.dim(dim)
    flow.freeze(x, f"written over at a position in {flow.node.name}", [dim])
    rest = [d for d in range(len(x.shape)) if d != dim]
    return flow.result({d: flow.join((x, d), (source, i)) for i, d in enumerate(rest)})


def _only(x: Axes, dim: int) -> dict[int, Any]:
    return {0: x.labels[dim]} if dim in x.labels else {}


def _without(flow: Flow, x: Axes, dim: int) -> Axes:
    """Freeze the labels along a dimension whose indices are picked by position; the other labels."""
    flow.freeze(x, f"picked by its position in {flow.node.name}", [x.dim(dim)])
    labels = {d: v for d, v in x.labels.items() if d != x.dim(dim)}
    return Axes(x.shape, labels, x.origin, {d: r for d, r in x.ragged.items() if d != x.dim(dim)})


@register("aten.unbind.int", ragged=True)
def unbind(flow: Flow, x: Axes, dim: int = 0) -> tuple[Axes, ...]:
    """Every index of a dimension on its own: there have to be as many of them."""
    rest = _without(flow, x, dim)
    return flow.moved(rest, lambda labels: labels.unbind(dim))  # type: ignore[no-any-return]


@register("aten.argsort.default", "aten.sort.default", "aten.sort.stable", "aten.topk.default")
def ordered(flow: Flow, x: Axes, *_: Any, **__: Any) -> Any:
    """Elements in the order of their size along one dimension, and where they were."""
    given = bind(flow.node)
    dim = x.dim(given["dim"])
    flow.freeze(x, f"put in order by {flow.node.target}", [dim])
    result = flow.result({d: vector for d, vector in x.labels.items() if d != dim})
    return result if isinstance(flow.node.meta["val"], Tensor) else (result,) * len(flow.shapes)


@register("aten.roll.default")
def roll(flow: Flow, x: Axes, shifts: list[int], dims: list[int] | None = None) -> Axes:
    """A cyclic shift; along a labelled dimension it depends on the size, so that stays."""
    shifted = [x.dim(dim) for dim in dims] if dims else list(x.labels)
    flow.freeze(x, f"shifted in {flow.node.name}", shifted)
    return flow.result({d: vector for d, vector in x.labels.items() if d not in shifted})


@register("aten.unfold.default")
def unfold(flow: Flow, x: Axes, dim: int, size: int, step: int) -> Axes:
    """Windows over one dimension, which keeps its size."""
    flow.freeze(x, f"windows in {flow.node.name}", [x.dim(dim)])
    rest = Axes(x.shape, {d: v for d, v in x.labels.items() if d != x.dim(dim)}, x.origin)
    return flow.moved(rest, lambda labels: labels.unfold(dim, size, step))  # type: ignore[no-any-return]


@register("aten.im2col.default")
def im2col(flow: Flow, x: Axes, kernel: list[int], *_: Any) -> Axes:
    """[N, C, H, W] to [N, C * kernel positions, windows]."""
    if len(x.shape) < 4:
        flow.freeze(x, f"windows of a single sample in {flow.node.name}")
        return flow.result({})
    flow.freeze(x, f"windows in {flow.node.name}", (2, 3))
    channels = x.labels.get(1)
    return flow.result({0: x.labels.get(0), 1: None if channels is None else _each(channels, math.prod(kernel))})


@register("aten.col2im.default")
def col2im(flow: Flow, x: Axes, size: list[int], kernel: list[int], *_: Any) -> Axes:
    """[N, C * kernel positions, windows] to [N, C, H, W]: the kernel positions of a channel go together."""
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


def _resize_pieces(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    whole = given["self"]
    if slicing.shape(whole)[given["dim"]] == slicing.axes(whole).shape[given["dim"]]:
        return
    count = len(node.meta["val"])
    sizes = [slicing.shape(node, piece)[given["dim"]] for piece in range(count)]
    copy.target, copy.args, copy.kwargs = aten.split_with_sizes.default, (copy.args[0], sizes, given["dim"]), {}


register(
    "aten.chunk.default",
    "aten.split.Tensor",
    "aten.split.sizes",
    "aten.split_with_sizes.default",
    "aten.tensor_split.indices",
    "aten.tensor_split.sections",
    resize=_resize_pieces,
    ragged=True,
)(_run_on_labels)


def _constant_index(slicing: Slicing, index: Node) -> Any:
    return slicing.tensor(index).flatten().cpu().numpy()


def _resize_index_select(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is not None and not mask.all():
        _select_indices(copy, given["dim"], _left(mask, _constant_index(slicing, given["index"])))


@register("aten.index_select.default", resize=_resize_index_select)
def index_select(flow: Flow, x: Axes, dim: int, index: Axes) -> Axes:
    """Positions from a constant: the same pick is made among the labels."""
    return _pick(flow, x, x.dim(dim), index, flow.node.args[2])


def _pick(flow: Flow, x: Axes, dim: int, index: Axes, source: Any) -> Axes:
    flow.freeze(index, "a list of positions")
    if source.op != "get_attr":
        flow.freeze(x, f"picked by computed positions in {flow.node.name}", [dim])
        return flow.result({d: v for d, v in x.labels.items() if d != dim})
    positions = flow.tensor(source).flatten().cpu() % x.shape[dim]
    return flow.moved(x, lambda labels: labels.index_select(dim, positions))  # type: ignore[no-any-return]


def _resize_index(slicing: Slicing, node: Node, copy: Node) -> None:
    dim, index = _only_index(node)
    mask = slicing.mask(node.args[0], dim)  # type: ignore[arg-type]
    if mask is not None and not mask.all():
        _select_indices(copy, dim, _left(mask, _constant_index(slicing, index)))


def _only_index(node: Node) -> tuple[int, Any]:
    indices = list(node.args[1])  # type: ignore[arg-type]
    return next((dim, index) for dim, index in enumerate(indices) if index is not None)


@register("aten.index.Tensor", resize=_resize_index)
def index(flow: Flow, x: Axes, indices: list[Axes | None]) -> Axes:
    """x[:, i]: with one constant list of positions as index_select; anything wilder freezes the indexed dimensions."""
    given = [dim for dim, each in enumerate(indices) if each is not None]
    chosen = indices[given[0]]
    assert chosen is not None
    if len(given) == 1 and len(chosen.shape) == 1:
        return _pick(flow, x, given[0], chosen, _only_index(flow.node)[1])
    flow.freeze(x, f"indexed in {flow.node.name}")
    for each in indices:
        if each is not None:
            flow.freeze(each, "a list of positions")
    return flow.result({})


# Joining and padding ---------------------------------------------------------------------------------------------


@register("aten.cat.default", "aten.concat.default", "aten.concatenate.default")
def cat(flow: Flow, tensors: list[Axes], dim: int = 0) -> Axes:
    """Along `dim` the labels follow each other; along every other dimension the operands go together."""
    tensors = [x for x in tensors if x.shape != (0,)]
    dim = tensors[0].dim(dim)
    labels = {d: flow.join(*[(x, d) for x in tensors]) for d in range(len(flow.shape)) if d != dim}
    if any(dim in x.labels for x in tensors):
        parts = [x.labels.get(dim, torch.zeros(x.shape[dim], dtype=torch.int64)) for x in tensors]
        labels[dim] = torch.cat(parts)
    return flow.result(labels)


@register("aten.stack.default")
def stack(flow: Flow, tensors: list[Axes], dim: int = 0) -> Axes:
    """A new dimension of fixed size; along every other one the operands go together."""
    dim %= len(flow.shape)
    labels = {d + (d >= dim): flow.join(*[(x, d) for x in tensors]) for d in range(len(tensors[0].shape))}
    return flow.result(labels)


def _padding(node: Node, pad: list[int]) -> dict[int, tuple[int, int]]:
    """Dimension -> elements added before and after, from torch's list, which starts at the last dimension."""
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
    """Channels that are padded in get labels of their own: they may die with what they are added to."""
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
    """Grids of positions: fixed sizes."""
    for value in args[0]:
        flow.freeze(value, f"spread in {flow.node.name}")
    return tuple(Axes(shape) for shape in flow.shapes)

"""Ops that select elements along one dimension: slices, splits, lists of indices, sorting.

Where the indices are known the op itself is run on the labels. Where they are computed the labels are frozen.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.flow import Flow
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.movement import run_on_labels
from pfpcli.channels.rules.rule import add_constant, register
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.calls import bind, rebind

aten = torch.ops.aten


def _left(mask: NDArray[np.bool_], picked: Any) -> list[int]:
    """Return the new indices of picked elements after a cut, without the picked elements that are dropped."""
    picked = np.asarray(picked)
    return (np.cumsum(mask) - 1)[picked[mask[picked]]].tolist()  # type: ignore[no-any-return]


def _select_indices(copy: Node, dim: int, indices: list[int]) -> None:
    """Turn a call into an index_select of the given indices."""
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


register("aten.slice.Tensor", resize=_resize_slice)(run_on_labels)
register("aten.narrow.default", resize=_resize_narrow)(run_on_labels)
register("aten.select.int", resize=_resize_select, ragged=True)(run_on_labels)


def _resize_slice_scatter(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is not None:
        picked = range(len(mask))[slice(given["start"], given["end"])]
        rebind(copy, start=int(mask[: picked.start].sum()), end=int(mask[: picked.stop].sum()))


@register("aten.slice_scatter.default", resize=_resize_slice_scatter)
def slice_scatter(flow: Flow, x: Axes, source: Axes, *_: Any, **__: Any) -> Axes:
    """Tie the slice of x that is written over to the tensor that is written."""
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
    """Freeze the dimension of which one index is written over."""
    dim = x.dim(dim)
    flow.freeze(x, f"written over at a position in {flow.node.name}", [dim])
    rest = [d for d in range(len(x.shape)) if d != dim]
    return flow.result({d: flow.join((x, d), (source, i)) for i, d in enumerate(rest)})


def _only(x: Axes, dim: int) -> dict[int, Any]:
    return {0: x.labels[dim]} if dim in x.labels else {}


def _without(flow: Flow, x: Axes, dim: int) -> Axes:
    """Freeze the labels along a dimension whose indices are picked by position; return the other labels."""
    flow.freeze(x, f"picked by its position in {flow.node.name}", [x.dim(dim)])
    labels = {d: v for d, v in x.labels.items() if d != x.dim(dim)}
    return Axes(x.shape, labels, x.origin, {d: r for d, r in x.ragged.items() if d != x.dim(dim)})


@register("aten.unbind.int", ragged=True)
def unbind(flow: Flow, x: Axes, dim: int = 0) -> tuple[Axes, ...]:
    """Freeze the dimension that is taken apart, because the number of results is fixed."""
    rest = _without(flow, x, dim)
    return flow.moved(rest, lambda labels: labels.unbind(dim))  # type: ignore[no-any-return]


@register("aten.argsort.default", "aten.sort.default", "aten.sort.stable", "aten.topk.default")
def ordered(flow: Flow, x: Axes, *_: Any, **__: Any) -> Any:
    """Freeze the dimension along which elements are sorted by value."""
    given = bind(flow.node)
    dim = x.dim(given["dim"])
    flow.freeze(x, f"sorted by {flow.node.target}", [dim])
    result = flow.result({d: vector for d, vector in x.labels.items() if d != dim})
    return result if isinstance(flow.node.meta["val"], Tensor) else (result,) * len(flow.shapes)


@register("aten.roll.default")
def roll(flow: Flow, x: Axes, shifts: list[int], dims: list[int] | None = None) -> Axes:
    """Freeze the dimensions that are shifted cyclically, because the shift depends on their sizes."""
    shifted = [x.dim(dim) for dim in dims] if dims else list(x.labels)
    flow.freeze(x, f"shifted in {flow.node.name}", shifted)
    return flow.result({d: vector for d, vector in x.labels.items() if d not in shifted})


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
)(run_on_labels)


def _constant_index(slicing: Slicing, index: Node) -> Any:
    return slicing.tensor(index).flatten().cpu().numpy()


def _resize_index_select(slicing: Slicing, node: Node, copy: Node) -> None:
    given = bind(node)
    mask = slicing.mask(given["self"], given["dim"])
    if mask is not None and not mask.all():
        _select_indices(copy, given["dim"], _left(mask, _constant_index(slicing, given["index"])))


@register("aten.index_select.default", resize=_resize_index_select)
def index_select(flow: Flow, x: Axes, dim: int, index: Axes) -> Axes:
    """Select labels with the same list of indices, if it is a constant."""
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
    """Label x[:, i]: one constant list of indices works as in index_select; otherwise all labels are frozen."""
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

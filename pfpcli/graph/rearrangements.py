"""Rewrites of chains of views and transposes that would hide which channel is where.

`gather_shuffles` writes a channel shuffle as one list of indices; `leave_batch` keeps channels out of the batch
dimension. The network computes the same values before and after.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.graph.graph import add_tensor, is_tensor, path_beside

#: The calls that channel shuffles and splits into heads consist of.
_MOVEMENTS = {
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.flatten.using_ints",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.transpose.int",
    "aten.unflatten.int",
    "aten.view.default",
}

# Channel shuffles ------------------------------------------------------------------------------------------------


def gather_shuffles(module: fx.GraphModule) -> bool:
    """Replace chains of views and transposes that only reorder one dimension by one index_select.

    Views would tie channels of different groups to each other; a list of indices lets any channel be dropped.

    Returns:
        Whether a chain was replaced.
    """
    graph = module.graph
    replaced = False
    for first in list(graph.nodes):
        chain = _shuffle_from(first)
        if not chain:
            continue
        x, last = first.args[0], chain[-1]
        dim, order = _reordering(chain, x.meta["val"].shape) or (0, None)
        if order is None:
            continue
        path = path_beside(module, last, f"{last.name}_order")
        add_tensor(module, path, order)
        with graph.inserting_before(last):
            indices = graph.get_attr(path)
            made = graph.call_function(torch.ops.aten.index_select.default, (x, dim, indices))
        made.meta = dict(last.meta)
        last.replace_all_uses_with(made)
        replaced = True
    return graph.eliminate_dead_code() or replaced


def _shuffle_from(first: Node) -> list[Node]:
    """Return the shortest chain of movements from a node on whose result has the shape of its input; [] if none."""
    chain: list[Node] = []
    node = first
    while node.op == "call_function" and str(node.target) in _MOVEMENTS and is_tensor(node):
        chain.append(node)
        if len(chain) > 2 and node.meta["val"].shape == first.all_input_nodes[0].meta["val"].shape:
            return chain
        if len(node.users) != 1:
            return []
        node = next(iter(node.users))
        if not node.args or node.args[0] is not chain[-1]:
            return []
    return []


def _reordering(chain: list[Node], shape: Sequence[int]) -> tuple[int, Tensor] | None:
    """Return the one dimension that a chain of movements reorders, and its order: int64[size]; None if it does more."""
    found = None
    for dim, size in enumerate(shape):
        sizes = [1] * len(shape)
        sizes[dim] = -1
        indices = torch.arange(size).view(sizes).expand(*shape)
        for node in chain:
            args, kwargs = fx.map_arg((node.args[1:], node.kwargs), lambda n: n.meta["val"])
            indices = (
                indices.reshape(*args) if "view" in str(node.target) else node.target(indices, *args, **kwargs)  # type: ignore
            )
        order = indices.movedim(dim, -1).reshape(-1, size)
        if not bool((order == order[0]).all()):
            return None
        if not bool((order[0] == torch.arange(size)).all()):
            if found is not None:
                return None
            found = (dim, order[0].clone())
    return found


# Channels in the batch dimension ---------------------------------------------------------------------------------


def leave_batch(module: fx.GraphModule) -> bool:
    """Replace chains of views and transposes that move channels into the batch dimension and out again.

    Channels (heads) cannot be labelled in the batch dimension. A split and a permutation do the same without it.

    Returns:
        Whether a chain was replaced.
    """
    graph = module.graph
    replaced = False
    for first in list(graph.nodes):
        if first.op != "call_function" or not first.args or not isinstance(first.args[0], Node):
            continue
        x = first.args[0]
        if not is_tensor(x) or not x.meta.get("free", [[]])[0] or 1 in x.meta["val"].shape:
            continue
        left = _left_batch(first)
        if left is None:
            continue
        last, splits, order = left
        made = x
        with graph.inserting_before(last):
            for dim in reversed(range(len(splits))):
                if len(splits[dim]) > 1:
                    made = graph.call_function(torch.ops.aten.unflatten.int, (made, dim, splits[dim]))
            made = graph.call_function(torch.ops.aten.permute.default, (made, order))
        last.replace_all_uses_with(made)
        replaced = True
    return graph.eliminate_dead_code() or replaced


def _left_batch(first: Node) -> tuple[Node, list[list[int]], list[int]] | None:
    """Find the movement of a chain after which no channel is in the batch dimension any more.

    Returns:
        (that movement, the sizes that each dimension is split into, the permutation of the pieces); None if channels
        never enter the batch dimension, or never leave it, or the chain copies.
    """
    x = first.all_input_nodes[0]
    shape, free = x.meta["val"].shape, x.meta["free"][0]
    moved, node, entered = torch.empty(shape, device="meta"), first, False
    while str(node.target) in _MOVEMENTS and is_tensor(node):
        args, kwargs = fx.map_arg((node.args[1:], node.kwargs), lambda n: n.meta["val"])
        try:
            moved = node.target(moved, *args, **kwargs)  # type: ignore[operator]
        except RuntimeError:  # x lies otherwise in memory, which alone allows this view
            return None
        if not moved._is_view():
            return None
        found = _splits(shape, moved)
        if found is None:
            entered = True
        elif entered and all(len(found[0][dim]) == 1 for dim in free):
            return (node, *found)
        if len(node.users) != 1:
            return None
        previous, node = node, next(iter(node.users))
        if not node.args or node.args[0] is not previous:
            return None
    return None


def _splits(shape: Sequence[int], moved: Tensor) -> tuple[list[list[int]], list[int]] | None:
    """Describe a view as a split of each dimension and a permutation of the pieces.

    Args:
        shape: the sizes of the contiguous tensor that is viewed.
        moved: the view.

    Returns:
        (the sizes of the pieces of each dimension, the permutation); None if the view joins dimensions.
    """
    strides = torch.empty(shape, device="meta").stride()
    pieces: list[list[tuple[int, int, int]]] = [[] for _ in shape]
    for place, (size, stride) in enumerate(zip(moved.shape, moved.stride(), strict=True)):
        inside = [d for d, s in enumerate(strides) if stride % s == 0 and s <= stride and stride * size <= s * shape[d]]
        if size == 1 or len(inside) != 1:
            return None
        pieces[inside[0]].append((stride, size, place))
    for each, size in zip(pieces, shape, strict=True):
        each.sort(reverse=True)
        if math.prod(piece[1] for piece in each) != size:
            return None
    return [[size for _, size, _ in each] for each in pieces], _inverse([at for each in pieces for _, _, at in each])


def _inverse(order: list[int]) -> list[int]:
    return sorted(range(len(order)), key=order.__getitem__)

"""Canonical: rewrites that give every graph the same form, whoever wrote the network.

Regions become part of the graph around them, calls that write in place become calls that return, what depends on
parameters alone is computed once, channel shuffles become lists of positions, and heads do not go through the batch.
None of them changes what the network computes.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from pfpcli.graph.graph import add_tensor, fetch, is_tensor, owner

#: ATen calls that only check something; the graph is traced once, and what they check is checked by then.
_ASSERTIONS = ("aten._assert_async", "aten._assert_scalar", "aten._assert_tensor_metadata", "aten.sym_constrain_range")


#: Regions that export puts into a graph of their own: (call, position of that graph among the arguments).
_REGIONS = {
    torch.ops.higher_order.wrap_with_autocast: 4,
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
}


def inline_regions(module: fx.GraphModule) -> None:
    """Put regions with a precision or a gradient mode of their own where they are called: neither matters here."""
    graph = module.graph
    while regions := [node for node in graph.nodes if node.target in _REGIONS]:
        for node in regions:
            _inline(module, node, _REGIONS[node.target])


def _inline(module: fx.GraphModule, node: Node, position: int) -> None:
    inner, *operands = node.args[position:]
    assert isinstance(inner, Node)
    region = fetch(module, str(inner.target)).graph
    placeholders = [each for each in region.nodes if each.op == "placeholder"]
    copies: dict[Node, Any] = dict(zip(placeholders, operands, strict=True))
    with module.graph.inserting_before(node):
        results = module.graph.graph_copy(region, copies)
    for each, made in copies.items():
        if each.op == "get_attr":
            made.target = f"{inner.target}.{each.target}"
    for user in list(node.users):  # the region gives a tuple
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index,arg-type]
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def drop_assertions(graph: fx.Graph) -> None:
    """Leave out calls that only check what was true when the graph was traced."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and str(node.target).startswith(_ASSERTIONS) and not node.users:
            graph.erase_node(node)


def functionalise(graph: fx.Graph) -> bool:
    """Replace calls that write to their first argument by calls that return the result; False if that is not enough."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        functional = _functional(node.target)
        written = node.args[0] if node.args else None
        if functional is None or not isinstance(written, Node) or _seen_through_views(written, node, position):
            return False
        node.target = functional
        after = {user for user in written.users if position[user] > position[node]}
        written.replace_all_uses_with(node, after.__contains__)
    return True


def _functional(target: Any) -> Any:
    """The overload that returns what an in-place overload writes, e.g. aten.relu.default for aten.relu_.default."""
    name, _, overload = str(target).removeprefix("aten.").partition(".")
    writes = [argument.alias_info.is_write for argument in target._schema.arguments if argument.alias_info]
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") and writes == [True] else None
    return getattr(packet, overload, None)


def _seen_through_views(written: Node, writer: Node, position: dict[Node, int]) -> bool:
    """Whether a write would be read later through another name of the same memory."""
    names, queue = {written}, [written]
    while queue:
        node = queue.pop()
        linked = [user for user in node.users if is_view_of(user, node)]
        if (
            node.op == "call_function"
            and node.args
            and isinstance(node.args[0], Node)
            and is_view_of(node, node.args[0])
        ):
            linked.append(node.args[0])
        queue += [other for other in linked if other not in names]
        names.update(linked)
    others = names - {written}
    return any(position.get(user, -1) > position[writer] for name in others for user in name.users) or any(
        name.op in ("placeholder", "get_attr") for name in names
    )


def is_view_of(node: Node, base: Node) -> bool:
    """Whether a node may show the memory of another one."""
    if node.target is operator.getitem:
        return node.args[0] is base
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args or node.args[0] is not base or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    # reshape, flatten and contiguous may return a view although their schema does not say so
    return (alias is not None and not alias.is_write) or str(node.target) in _MAYBE_VIEWS


_MAYBE_VIEWS = {
    "aten.chunk.default",
    "aten.contiguous.default",
    "aten.flatten.using_ints",
    "aten.reshape.default",
    "aten.to.dtype",
}


def fold_constants(module: fx.GraphModule) -> None:
    """Compute what depends on parameters and constants only (weight standardisation, position tables), once.

    Views of a parameter stay: they cost nothing, and folding them would count the parameter twice.
    """
    graph = module.graph
    constant: set[Node] = set()
    computed: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            constant.add(node)
        elif node.op == "call_function" and _is_pure(node) and all(i in constant for i in node.all_input_nodes):
            constant.add(node)
            sources = node.all_input_nodes
            if not (sources and is_view_of(node, sources[0])) or any(i in computed for i in sources):
                computed.add(node)
    values: dict[Node, Any] = {}
    for node in list(graph.nodes):
        if node in computed and is_tensor(node) and any(user not in computed for user in node.users):
            _replace_by_value(module, node, values)
    graph.eliminate_dead_code()


def _is_pure(node: Node) -> bool:
    tags = getattr(node.target, "tags", None)
    return (tags is not None and torch.Tag.nondeterministic_seeded not in tags) or node.target is operator.getitem


def _replace_by_value(module: fx.GraphModule, node: Node, values: dict[Node, Any]) -> None:
    with torch.no_grad():
        value = _evaluate(module, node, values).detach().clone()
    trained = any(isinstance(fetch(module, str(n.target)), nn.Parameter) for n in _sources(node))
    path = f"{owner(node)}.{node.name}" if _has_module(module, owner(node)) else node.name
    add_tensor(module, path, nn.Parameter(value) if trained and value.is_floating_point() else value)
    with module.graph.inserting_before(node):
        attribute = module.graph.create_node("get_attr", path, name=node.name)
    attribute.meta = {"val": node.meta["val"]}
    node.replace_all_uses_with(attribute)


def _evaluate(module: fx.GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    if node not in values:
        if node.op == "get_attr":
            values[node] = fetch(module, str(node.target))
        else:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: _evaluate(module, n, values))
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values[node]


def _sources(node: Node) -> Iterator[Node]:
    for argument in node.all_input_nodes:
        if argument.op == "get_attr":
            yield argument
        else:
            yield from _sources(argument)


#: What a channel shuffle is written with.
_SHUFFLING = {
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.flatten.using_ints",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.transpose.int",
    "aten.unflatten.int",
    "aten.view.default",
}


def gather_shuffles(module: fx.GraphModule) -> None:
    """Replace chains of views and transposes that only reorder one dimension by one index_select.

    Written as views, a channel shuffle ties channels to each other through their places; as a list of positions it can
    lose any of them.
    """
    graph = module.graph
    for first in list(graph.nodes):
        chain = _shuffle_from(first)
        if not chain:
            continue
        x, last = first.args[0], chain[-1]
        dim, order = _reordering(chain, x.meta["val"].shape) or (0, None)
        if order is None:
            continue
        path = f"{owner(last)}.{last.name}_order" if _has_module(module, owner(last)) else f"{last.name}_order"
        add_tensor(module, path, order)
        with graph.inserting_before(last):
            positions = graph.get_attr(path)
            made = graph.call_function(torch.ops.aten.index_select.default, (x, dim, positions))
        made.meta = dict(last.meta)
        last.replace_all_uses_with(made)
    graph.eliminate_dead_code()


def _shuffle_from(first: Node) -> list[Node]:
    """The shortest chain of movements from a node on that ends with the shape it began with; empty if there is none."""
    chain: list[Node] = []
    node = first
    while node.op == "call_function" and str(node.target) in _SHUFFLING and is_tensor(node):
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
    """The one dimension a chain of movements reorders, and how: int64[size]; None if it does anything else."""
    found = None
    for dim, size in enumerate(shape):
        sizes = [1] * len(shape)
        sizes[dim] = -1
        places = torch.arange(size).view(sizes).expand(*shape)
        for node in chain:
            args, kwargs = fx.map_arg((node.args[1:], node.kwargs), lambda n: n.meta["val"])
            places = places.reshape(*args) if "view" in str(node.target) else node.target(places, *args, **kwargs)  # type: ignore
        order = places.movedim(dim, -1).reshape(-1, size)
        if not bool((order == order[0]).all()):
            return None
        if not bool((order[0] == torch.arange(size)).all()):
            if found is not None:
                return None
            found = (dim, order[0].clone())
    return found


def leave_batch(module: fx.GraphModule) -> None:
    """Replace chains of views and transposes that put channels into the batch and take them out again.

    Heads that were in the batch on the way have lost their labels; a split and a permutation keep them.
    """
    graph = module.graph
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
    graph.eliminate_dead_code()


def _left_batch(first: Node) -> tuple[Node, list[list[int]], list[int]] | None:
    """Where a chain of movements has left the batch again, and the splits and the permutation it comes to."""
    x = first.all_input_nodes[0]
    shape, free = x.meta["val"].shape, x.meta["free"][0]
    moved, node, entered = torch.empty(shape, device="meta"), first, False
    while str(node.target) in _SHUFFLING and is_tensor(node):
        args, kwargs = fx.map_arg((node.args[1:], node.kwargs), lambda n: n.meta["val"])
        moved = node.target(moved, *args, **kwargs)  # type: ignore[operator]
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
    """A view of a tensor of some shape as pieces of each dimension and their order; None if it joins dimensions."""
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


def _has_module(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(fetch(module, path), nn.Module)
    except AttributeError:
        return False

"""Rewrites that make a graph functional: one flat list of calls, none of which writes to a tensor.

`inline_regions` puts the calls of nested graphs into the graph around them, `drop_assertions` removes calls that only
check something, and `functionalise` replaces in-place calls. The network computes the same values before and after.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import fx
from torch.fx.node import Node

from pfpcli.graph.calls import is_mutable
from pfpcli.graph.graph import fetch

#: ATen calls that only check something. The graph is traced once, and these checks held then.
_ASSERTIONS = ("aten._assert_async", "aten._assert_scalar", "aten._assert_tensor_metadata", "aten.sym_constrain_range")


#: Calls that hold a graph of their own -> the position of that graph among their arguments.
_REGIONS = {
    torch.ops.higher_order.wrap_with_autocast: 4,
    torch.ops.higher_order.wrap_with_set_grad_enabled: 1,
}


def inline_regions(module: fx.GraphModule) -> None:
    """Inline regions that set a precision or a gradient mode; the graph needs neither."""
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
    for user in list(node.users):  # a region returns a tuple
        user.replace_all_uses_with(results[user.args[1]])  # type: ignore[index,arg-type]
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def drop_assertions(graph: fx.Graph) -> None:
    """Remove calls that only check something that held when the graph was traced."""
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and str(node.target).startswith(_ASSERTIONS) and not node.users:
            graph.erase_node(node)


def functionalise(graph: fx.Graph) -> bool:
    """Replace calls that write to their first argument by calls that return the result.

    Returns:
        False if a write cannot be replaced, because the graph reads the written memory through another view.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        if node.op != "call_function" or not is_mutable(node.target):
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
    """Return the overload that returns the result of an in-place overload: aten.relu.default for aten.relu_.default."""
    name, _, overload = str(target).removeprefix("aten.").partition(".")
    writes = [argument.alias_info.is_write for argument in target._schema.arguments if argument.alias_info]
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") and writes == [True] else None
    return getattr(packet, overload, None)


def _seen_through_views(written: Node, writer: Node, position: dict[Node, int]) -> bool:
    """Whether the graph may read a written tensor later through another view of its memory."""
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
    """Whether the value of a node may share memory with the value of another one."""
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

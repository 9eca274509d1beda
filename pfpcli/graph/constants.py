"""A rewrite that computes tensors which depend on parameters and constants alone once, when the graph is made."""

from __future__ import annotations

import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import fx, nn
from torch.fx.node import Node

from pfpcli.graph.functional import is_view_of
from pfpcli.graph.graph import add_tensor, fetch, is_tensor, path_beside


def fold_constants(module: fx.GraphModule) -> bool:
    """Replace calls on parameters and constants by their values (weight standardisation, position tables).

    Views of a parameter stay calls: they cost nothing, and a stored copy would count the parameter twice.

    Returns:
        Whether a call was replaced.
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
    folded = False
    for node in list(graph.nodes):
        if node in computed and is_tensor(node) and any(user not in computed for user in node.users):
            _replace_by_value(module, node, values)
            folded = True
    return graph.eliminate_dead_code() or folded


def _is_pure(node: Node) -> bool:
    tags = getattr(node.target, "tags", None)
    return (tags is not None and torch.Tag.nondeterministic_seeded not in tags) or node.target is operator.getitem


def _replace_by_value(module: fx.GraphModule, node: Node, values: dict[Node, Any]) -> None:
    """Store the value of a node as a tensor of the module; it is a parameter if a parameter is among its sources."""
    with torch.no_grad():
        value = _evaluate(module, node, values).detach().clone()
    trained = any(isinstance(fetch(module, str(n.target)), nn.Parameter) for n in _sources(node))
    path = path_beside(module, node, node.name)
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

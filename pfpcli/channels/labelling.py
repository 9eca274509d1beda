"""Labelling: one walk over the graph that gives every tensor its labels.

The rule of each op says where the labels go. An op without a rule freezes the labels that reach it. All later steps
(groups, costs, cutting, masking) only read the labels.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx.node import Node, map_arg

from pfpcli.channels import rules
from pfpcli.channels.flow import Flow
from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labels import Axes, Store, without_ragged
from pfpcli.graph.graph import Graph


def label(graph: Graph) -> Labelled:
    """Label every tensor of a graph."""
    labelled = Labelled(graph, {}, Store(), [], [])
    by_tensor: dict[int, Axes] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            labelled.axes[node] = _input(labelled.store, node)
        elif node.op == "get_attr":
            tensor = graph.tensor(node)
            if isinstance(tensor, Tensor):
                # a tensor has one set of labels, however many names and uses it has
                if id(tensor) not in by_tensor:
                    by_tensor[id(tensor)] = _parameter(labelled.store, node)
                labelled.axes[node] = by_tensor[id(tensor)]
        elif node.op == "call_function":
            _call(labelled, node)
    for node in graph.outputs:
        _freeze_all(labelled, node, "output of the model")
    labelled.check()
    return labelled


def _input(store: Store, node: Node) -> Axes:
    shape = tuple(node.meta["val"].shape)
    labels = {dim: store.fresh(size) for dim, size in enumerate(shape) if dim > 0 and size > 1}
    for vector in labels.values():
        store.freeze(vector, "input of the model")
    return Axes(shape, labels, f"input {node.target}")


def _parameter(store: Store, node: Node) -> Axes:
    shape = tuple(node.meta["val"].shape)
    return Axes(shape, {d: store.fresh(n) for d, n in enumerate(shape) if n > 1}, f"{node.target}")


def _call(labelled: Labelled, node: Node) -> None:
    value = node.meta["val"]
    if not _holds_tensors(value):
        return
    rule = rules.find(node.target)
    if rule is None:
        for source in node.all_input_nodes:
            _freeze_all(labelled, source, f"reaches {node.target}, which has no rule")
        labelled.unknown.append(node)
        labelled.axes[node] = _fixed(value, f"the result of {node.target}, which has no rule")
        return
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: _operand(labelled, n, rule.ragged))
    labelled.axes[node] = rule.flow(Flow(labelled, node), *args, **kwargs)


def _operand(labelled: Labelled, node: Node, ragged: bool) -> Any:
    """Return what a rule gets for an argument: the labels of a tensor, or the number that the argument is."""
    found = labelled.axes.get(node, node.meta.get("val"))
    return without_ragged(labelled.store, found) if isinstance(found, Axes) and found.ragged and not ragged else found


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(_holds_tensors, value)))


def _fixed(value: Any, origin: str) -> Any:
    """Return axes without labels for each tensor of a value."""
    if isinstance(value, Tensor):
        return Axes(tuple(value.shape), {}, origin)
    return tuple(_fixed(part, origin) for part in value) if isinstance(value, (tuple, list)) else value


def _freeze_all(labelled: Labelled, node: Node, reason: str) -> None:
    """Freeze all labels of a node's results."""
    found = labelled.axes.get(node)
    for axes in found if isinstance(found, tuple) else [found]:
        if isinstance(axes, Axes):
            for vector in axes.vectors:
                labelled.store.freeze(vector, reason)

"""Lockstep: an original and its cut run side by side, node by node, on all images at once.

Of several processes each has its own batches, maybe none; what visitors sum up over them has to be combined.

Before a call of the cut network is computed, a visitor may change its tensors, with everything in front of it computed
already: what an earlier layer could not make good, a later one sees.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.channels.labels import Axes
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import Graph, fetch, is_tensor

#: Values of a graph for one batch.
_Values = dict[Node, Any]


class Lockstep:
    """Two networks side by side.

    Args:
        cut: the cut network and how it was made; its nodes have the names they have in the original.

    Attributes:
        places: of the batches here, among those of all processes.
    """

    def __init__(self, cut: Cut) -> None:
        self._slicing, self._smaller = cut
        self._whole = cut.slicing.labelled.graph
        named = {node.name: node for node in self._smaller.nodes}
        self._partner = {node: named[node.name] for node in self._whole.nodes if node.name in named}
        self._original = {partner: node for node, partner in self._partner.items()}
        self._runs = fx.Interpreter(self._whole.module), fx.Interpreter(self._smaller.module)
        self.places: list[int] = []
        self._batches: list[tuple[_Values, _Values]] = []
        self._computed: tuple[set[Node], set[Node]] = set(), set()

    def run(self, batches: Mapping[int, Tensor], visit: Callable[[Node], None]) -> None:
        """Compute everything.

        Args:
            batches: place -> float[N, ...], where the tensors of the graphs are.
            visit: called with every call of the cut network, after the original has computed it and before it does.
        """
        first = self._whole.inputs[0]
        self.places = list(batches)
        self._batches = [({first: x}, {self._partner[first]: x}) for x in batches.values()]
        self._computed = {first}, {self._partner[first]}
        done = _last_uses(self._whole), _last_uses(self._smaller)
        with torch.no_grad():
            for node in self._smaller.nodes:
                if node.op == "get_attr" and node not in self._original:  # a list of positions that a cut has changed
                    self._compute(1, node)
            for node in self._whole.nodes:
                if node.op in ("placeholder", "output"):
                    continue
                self._compute(0, node)
                partner = self._partner.get(node)
                if partner is not None:
                    if partner.op == "call_function":
                        visit(partner)
                    self._compute(1, partner)
                for before, now in self._batches:
                    for old in done[0].get(node, ()):
                        before.pop(old, None)
                    for old in done[1].get(partner, ()) if partner is not None else ():
                        now.pop(old, None)
        self._batches = []

    def tensor(self, node: Node) -> Tensor:
        """The tensor of the cut network that a `get_attr` node of it stands for."""
        tensor: Tensor = fetch(self._smaller.module, str(node.target))
        return tensor

    def users(self, node: Node) -> set[Node]:
        """The calls of the cut network that use the tensor of a `get_attr` node of it, under whatever name."""
        tensor = self.tensor(node)
        alike = [n for n in self._smaller.nodes if n.op == "get_attr" and is_tensor(n) and self.tensor(n) is tensor]
        return {user for each in alike for user in each.users}

    def original(self, node: Node) -> list[Any]:
        """What the original has at a node of the cut network, as far as that is left, batch by batch."""
        source = self._original[node]
        one = isinstance(self._slicing.labelled.axes.get(source), Axes)
        values = (before[source] for before, _ in self._batches)
        return [self._slicing.slice(source, value) if one and isinstance(value, Tensor) else value for value in values]

    def now(self, node: Node) -> list[Any]:
        """What the cut network has at a node, batch by batch."""
        return [now[node] for _, now in self._batches]

    def is_known(self, node: Node) -> bool:
        """Whether both networks have computed a node of the cut one."""
        return self._original.get(node) in self._computed[0] and node in self._computed[1]

    def _compute(self, which: int, node: Node) -> None:
        self._computed[which].add(node)
        for values in self._batches:
            self._runs[which].env = values[which]
            values[which][node] = self._runs[which].run_node(node)


def numbers(graph: Graph) -> int:
    """Numbers that a graph has to hold at a time for one image."""
    done, held, most = _last_uses(graph), 0, 0
    for node in graph.nodes:
        held += _size(node)
        most = max(most, held)
        held -= sum(map(_size, done.get(node, ())))
    return most // graph.batch


def _size(node: Node) -> int:
    return int(node.meta["val"].numel()) if node.op != "get_attr" and is_tensor(node) else 0


def _last_uses(graph: Graph) -> dict[Node, list[Node]]:
    """Node -> the nodes whose values nobody needs after it."""
    found: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    for node in reversed(list(graph.nodes)):
        for source in (node, *node.all_input_nodes):
            if source not in seen:
                seen.add(source)
                found.setdefault(node, []).append(source)
    return found

"""Paired run: the original and its cut network run side by side, call by call, on all images at once.

Before a call of the cut network runs, a visitor may change the tensors of that call. Every call before it has already
run in both networks, so a later layer can compensate for the error that earlier layers left.

Each process runs its own batches and may have none. A visitor has to combine its sums over all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli.channels.labels import Axes
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import Graph, fetch, is_tensor

#: Node -> its value for one batch.
_Values = dict[Node, Any]


class PairedRun:
    """The original and its cut network, run side by side.

    Args:
        cut: the cut network and its slicing. A node of the cut network has the name of its node in the original.

    Attributes:
        firsts: for each batch of this process, the index of its first image among the images of all processes.
    """

    def __init__(self, cut: Cut) -> None:
        self._slicing, self._smaller = cut
        self._whole = cut.slicing.labelled.graph
        named = {node.name: node for node in self._smaller.nodes}
        self._partner = {node: named[node.name] for node in self._whole.nodes if node.name in named}
        self._original = {partner: node for node, partner in self._partner.items()}
        self._interpreters = fx.Interpreter(self._whole.module), fx.Interpreter(self._smaller.module)
        self.firsts: list[int] = []
        self._batches: list[tuple[_Values, _Values]] = []
        self._computed: tuple[set[Node], set[Node]] = set(), set()

    def run(self, batches: Mapping[int, Tensor], visit: Callable[[Node], None]) -> None:
        """Run both networks.

        Args:
            batches: index of the first image -> float[N, ...], on the device of the graphs.
            visit: receives each call of the cut network after the original has run the call and before the cut network
                does.
        """
        first = self._whole.inputs[0]
        self.firsts = list(batches)
        self._batches = [({first: x}, {self._partner[first]: x}) for x in batches.values()]
        self._computed = {first}, {self._partner[first]}
        last_uses = _last_uses(self._whole), _last_uses(self._smaller)
        with torch.no_grad():
            for node in self._smaller.nodes:
                if node.op == "get_attr" and node not in self._original:  # an index tensor that the cut has replaced
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
                self._free(0, last_uses[0].get(node, ()))
                if partner is not None:
                    self._free(1, last_uses[1].get(partner, ()))
        self._batches = []

    def tensor(self, node: Node) -> Tensor:
        """The tensor of the cut network that its `get_attr` node names."""
        tensor: Tensor = fetch(self._smaller.module, str(node.target))
        return tensor

    def users(self, node: Node) -> set[Node]:
        """The calls of the cut network that use the tensor of a `get_attr` node, under any of the tensor's names."""
        tensor = self.tensor(node)
        aliases = [n for n in self._smaller.nodes if n.op == "get_attr" and is_tensor(n) and self.tensor(n) is tensor]
        return {user for alias in aliases for user in alias.users}

    def original(self, node: Node) -> list[Any]:
        """The original's values at a node of the cut network, sliced to the kept channels, one for each batch."""
        source = self._original[node]
        one = isinstance(self._slicing.labelled.axes.get(source), Axes)
        values = (before[source] for before, _ in self._batches)
        return [self._slicing.slice(source, value) if one and isinstance(value, Tensor) else value for value in values]

    def now(self, node: Node) -> list[Any]:
        """The cut network's values at a node, one for each batch."""
        return [now[node] for _, now in self._batches]

    def is_known(self, node: Node) -> bool:
        """Whether both networks have computed a node of the cut network."""
        return self._original.get(node) in self._computed[0] and node in self._computed[1]

    def _compute(self, which: int, node: Node) -> None:
        """Compute a node of the original (0) or of the cut network (1) for every batch."""
        self._computed[which].add(node)
        for values in self._batches:
            self._interpreters[which].env = values[which]
            values[which][node] = self._interpreters[which].run_node(node)

    def _free(self, which: int, nodes: Iterable[Node]) -> None:
        """Drop the values of nodes that no later node reads."""
        for values in self._batches:
            for node in nodes:
                values[which].pop(node, None)


def peak_numbers(graph: Graph) -> int:
    """The largest number of values that a graph holds at one time for one image."""
    last_uses, held, most = _last_uses(graph), 0, 0
    for node in graph.nodes:
        held += _size(node)
        most = max(most, held)
        held -= sum(map(_size, last_uses.get(node, ())))
    return most // graph.batch


def _size(node: Node) -> int:
    return int(node.meta["val"].numel()) if node.op != "get_attr" and is_tensor(node) else 0


def _last_uses(graph: Graph) -> dict[Node, list[Node]]:
    """Node -> the nodes whose values no later node reads."""
    found: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    for node in reversed(list(graph.nodes)):
        for source in (node, *node.all_input_nodes):
            if source not in seen:
                seen.add(source)
                found.setdefault(node, []).append(source)
    return found

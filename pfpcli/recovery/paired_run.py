"""Paired run: the original and its cut network run side by side on all images, from one visit to the next.

Before some calls of the cut network run, a visitor may change their tensors. Every call before such a call has already
run in both networks, so a later layer can compensate for the error that earlier layers left. Between two visits one
batch runs after the other, and only the values that later calls read are kept (`shelf`).

Each process runs its own batches and may have none. A visitor has to combine its sums over all processes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import memory
from pfpcli.channels.labels import Axes
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import Graph, fetch, is_tensor
from pfpcli.graph.pending_product import EXPANDING
from pfpcli.graph.run import Run
from pfpcli.recovery.shelf import Shelf, read

#: Node -> its value for one batch.
_Values = dict[Node, Any]


class Visitor(Protocol):
    """Changes the tensors of some calls of a cut network."""

    def wants(self, node: Node) -> bool:
        """Whether to visit a call of the cut network."""

    def __call__(self, node: Node) -> None:
        """Visit a call: the original has run it, and the cut network has not."""


@dataclass(frozen=True)
class BatchValues:
    """The values of both networks for one batch.

    Attributes:
        first: the index of the batch's first image among the images of all processes.
        pair: the run.
        values: of the original and of the cut network, as they lie on the shelf.
    """

    first: int
    pair: PairedRun = field(repr=False)
    values: tuple[_Values, _Values] = field(repr=False)

    @property
    def images(self) -> Tensor:
        """The images of the batch, float[N, ...], as long as the run has not begun."""
        found: Tensor = read(self.values[0][self.pair.whole.inputs[0]])
        return found

    def original(self, node: Node) -> Any:
        """The original's value at a node of the cut network, sliced to the kept channels."""
        return self.pair.sliced(node, read(self.values[0][self.pair.source(node)]))

    def now(self, node: Node) -> Any:
        """The cut network's value at a node."""
        return read(self.values[1][node])

    def length(self, node: Node) -> int:
        """The length of the cut network's value at a node, which is not read from its file for it."""
        return len(self.values[1][node])


class PairedRun:
    """The original and its cut network, run side by side.

    Args:
        cut: the cut network and its slicing. A node of the cut network has the name of its node in the original.
        shelf: keeps the values of the batches.

    Attributes:
        whole: the original.
    """

    def __init__(self, cut: Cut, shelf: Shelf | None = None) -> None:
        self._slicing, self._smaller = cut
        self.whole = cut.slicing.labelled.graph
        named = {node.name: node for node in self._smaller.nodes}
        self._partner = {node: named[node.name] for node in self.whole.nodes if node.name in named}
        self._original = {partner: node for node, partner in self._partner.items()}
        self._interpreters = Run(self.whole.module), Run(self._smaller.module)
        self._stored = [
            {node: fetch(graph.module, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
            for graph in (self.whole, self._smaller)
        ]
        self._users: dict[int, set[Node]] = {}
        for node, tensor in self._stored[1].items():
            self._users.setdefault(id(tensor), set()).update(node.users)
        self._shelf = shelf or Shelf()
        self._batches: list[BatchValues] = []
        self._computed: set[tuple[int, Node]] = set()

    def add(self, first: int, images: Tensor) -> None:
        """Add a batch to run on.

        Args:
            first: the index of its first image among the images of all processes.
            images: float[N, ...], on the device of the graphs.
        """
        node = self.whole.inputs[0]
        self._batches.append(
            BatchValues(first, self, self._kept([{node: images}, {self._partner[node]: images}], ({}, {})))
        )

    def run(self, visitor: Visitor) -> None:
        """Run both networks on the batches that were added, and forget them.

        Args:
            visitor: visits the calls that it wants, in the order of the graph.
        """
        first = self.whole.inputs[0]
        self._computed = {(0, first), (1, self._partner[first])}
        order = _late_order(self.whole, lambda node: self._is_visited(node, visitor))
        partners = [self._partner[node] for node in order if node in self._partner]
        last_uses = _last_uses(order), _last_uses(partners)
        steps: list[_Step] = []
        with torch.no_grad():
            for node in order:
                if node.op in ("placeholder", "output", "get_attr"):
                    continue
                steps.append(_Step(0, node))
                partner = self._partner.get(node)
                if partner is not None:
                    if self._is_visited(node, visitor):
                        self._run_batches(steps)
                        visitor(partner)
                        steps = []
                    steps.append(_Step(1, partner, last_uses[1].get(partner, [])))
                # a visit still reads what the original's call has read
                steps.append(_Step(0, None, last_uses[0].get(node, [])))
        self._batches = []

    @property
    def batches(self) -> Iterator[BatchValues]:
        """The batches of this process, with the values that this visit and later calls read."""
        return iter(self._batches)

    def tensor(self, node: Node) -> Tensor:
        """The tensor of the cut network that its `get_attr` node names."""
        tensor: Tensor = self._stored[1][node]
        return tensor

    def users(self, node: Node) -> set[Node]:
        """The calls of the cut network that use the tensor of a `get_attr` node, under any of the tensor's names."""
        return self._users[id(self._stored[1][node])]

    def source(self, node: Node) -> Node:
        """The node of the original that a node of the cut network was made of."""
        return self._original[node]

    def sliced(self, node: Node, value: Any) -> Any:
        """The original's value at a node of the cut network, sliced to the kept channels."""
        source = self._original[node]
        has_channels = isinstance(self._slicing.labelled.axes.get(source), Axes) and isinstance(value, Tensor)
        return self._slicing.slice(source, value) if has_channels else value

    def visited(self, visitor: Visitor) -> list[Node]:
        """The calls of the original whose calls in the cut network a visitor wants."""
        return [node for node in self.whole.nodes if self._is_visited(node, visitor)]

    def is_known(self, node: Node) -> bool:
        """Whether both networks have computed a node of the cut network."""
        return (0, self._original.get(node)) in self._computed and (1, node) in self._computed

    def _is_visited(self, node: Node, visitor: Visitor) -> bool:
        """Whether the call that a node of the original has become is visited."""
        partner = self._partner.get(node)
        return partner is not None and partner.op == "call_function" and visitor.wants(partner)

    def _run_batches(self, steps: list[_Step]) -> None:
        """Run some steps for every batch: those of the original first, so that one network's values come and go."""
        steps = sorted(steps, key=lambda step: step.which)
        needed = [
            {source for step in steps if step.which == i and step.node for source in step.node.all_input_nodes}
            for i in range(2)
        ]
        for i, batch in enumerate(self._batches):
            values = [
                {**stored, **self._shelf.take(each, of_network)}
                for stored, each, of_network in zip(self._stored, batch.values, needed, strict=True)
            ]
            for step in steps:
                interpreter, env = self._interpreters[step.which], values[step.which]
                if step.node is not None:
                    interpreter.env = env
                    env[step.node] = interpreter.run_node(step.node)
                for node in step.done:
                    env.pop(node, None)
            self._batches[i] = BatchValues(batch.first, self, self._kept(values, batch.values))
            memory.give_back_if_grown()
        self._computed.update((step.which, step.node) for step in steps if step.node is not None)

    def _kept(self, values: Sequence[_Values], before: Sequence[_Values]) -> tuple[_Values, _Values]:
        """Put the values of a batch on the shelf; stored tensors need no place there.

        Args:
            values: of the original and of the cut network.
            before: what lay on the shelf.
        """
        found = [
            self._shelf.put({node: value for node, value in each.items() if node.op != "get_attr"}, was)
            for each, was in zip(values, before, strict=True)
        ]
        return found[0], found[1]


@dataclass(frozen=True)
class _Step:
    """One step of a run.

    Attributes:
        which: 0 for the original, 1 for the cut network.
        node: the node to run, if any.
        done: the nodes whose values no later step reads.
    """

    which: int
    node: Node | None
    done: Sequence[Node] = ()


def peak_numbers(graph: Graph) -> int:
    """The largest number of values that a graph holds at one time for one image."""
    last_uses, held, most = _last_uses(graph.nodes), 0, 0
    for node in graph.nodes:
        held += _size(node)
        most = max(most, held)
        held -= sum(map(_size, last_uses.get(node, ())))
    return most // graph.batch


def _size(node: Node) -> int:
    return int(node.meta["val"].numel()) if node.op != "get_attr" and is_tensor(node) else 0


def _late_order(graph: Graph, is_visited: Callable[[Node], bool]) -> list[Node]:
    """The nodes in the order of the graph, but for expanding calls, which wait until their result is read.

    That is a product of all positions with all positions: kept from visit to visit, it would fill the shelf. Calls that
    pass so large a result on (a softmax) wait as well. Visited calls never wait. Maps that are only enlarged do not
    wait: the refit of a branch looks at the other branch.

    Args:
        graph: the original.
        is_visited: whether a call is visited.
    """
    found: dict[Node, None] = {}
    waiting: dict[Node, None] = {}
    for node in graph.nodes:
        read = [each for each in node.all_input_nodes if each.op != "get_attr"]
        passes_on = any(2 * _size(node) >= _size(each) for each in read if each in waiting)
        expands = _size(node) >= EXPANDING * sum(map(_size, read)) > 0
        if (expands or passes_on) and not is_visited(node):
            waiting[node] = None
            continue
        needed = {node}
        for each in reversed(waiting):
            if not needed.isdisjoint(each.users):
                needed.add(each)
        for each in [each for each in waiting if each in needed]:
            del waiting[each]
            found[each] = None
        found[node] = None
    return list(found)


def _last_uses(nodes: Iterable[Node]) -> dict[Node, list[Node]]:
    """Node -> the nodes whose values no later node of these reads."""
    found: dict[Node, list[Node]] = {}
    seen: set[Node] = set()
    for node in reversed(list(nodes)):
        for source in (node, *node.all_input_nodes):
            if source not in seen:
                seen.add(source)
                found.setdefault(node, []).append(source)
    return found

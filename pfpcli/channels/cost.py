"""Cost: parameters, multiply-adds (MACs) and bytes of a network, and of a plan before it is cut.

One MAC is one multiplication and one addition of a convolution, a linear layer, a matrix product or attention; biases,
norms and activations count as 0. MACs are for one input. Bytes are those of floating-point tensors: lists of indices
belong to the graph and were not trained. `predict` takes sizes from the plan and `count` from the tensors of the cut
network, both with the same table of ops; the two must agree exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from torch import nn
from torch.fx.node import Node

from pfpcli.amounts import COUNTED
from pfpcli.channels import rules
from pfpcli.channels.groups import Groups
from pfpcli.channels.labels import Axes
from pfpcli.channels.rules.statistics import NORMS
from pfpcli.graph.functional import is_view_of
from pfpcli.graph.graph import Graph, is_tensor

#: To write a number of a result and to read it again takes as long as this many multiply-adds, about, on a CPU.
MOVED = 64


@dataclass(frozen=True)
class Costs:
    """The costs of a network.

    Attributes:
        params: number of parameters.
        macs: MACs for one input.
        bytes: of the floating-point parameters and buffers.
        ms: predicted milliseconds for one input; nan where nothing was timed. It is no property of the tensors, so
            costs that differ in it alone are equal.
    """

    params: int
    macs: int
    bytes: int
    ms: float = field(default=math.nan, compare=False)

    def of(self, measure: str) -> float:
        """Return one of them; measure: one of `amounts.COUNTED`."""
        return float(getattr(self, COUNTED[measure].cost))


def count(graph: Graph) -> Costs:
    """Return the costs of a graph, from the sizes of its tensors."""
    tensors = {id(graph.tensor(node)): graph.tensor(node) for node in graph.nodes if _is_stored(node)}.values()
    return Costs(
        params=sum(t.numel() for t in tensors if isinstance(t, nn.Parameter)),
        macs=sum(node_macs(graph, lambda node: tuple(node.meta["val"].shape)).values()),
        bytes=sum(t.numel() * t.element_size() for t in tensors),
    )


def node_macs(graph: Graph, sizes: Callable[[Node], tuple[int, ...]]) -> dict[Node, int]:
    """Return the MACs of each call, for one input; `sizes` returns the sizes of a node's tensor."""
    found = {}
    for node in graph.nodes:
        rule = rules.find(node.target) if node.op == "call_function" else None
        if rule is not None and rule.macs is not None:
            found[node] = rule.macs(sizes, node) // graph.batch
    return found


def _is_stored(node: Node) -> bool:
    return node.op == "get_attr" and is_tensor(node) and node.meta["val"].is_floating_point()


def _is_moved(node: Node) -> bool:
    """Whether the result of a call is written. A view is not, nor is what runtimes compute with the layer before it."""
    if node.op != "call_function" or not is_tensor(node):
        return False
    rule, sources = rules.find(node.target), node.all_input_nodes
    if str(node.target) in NORMS or (rule is not None and rule.clips is not None):
        return False
    return not any(is_view_of(node, source) for source in sources)


class Predictor:
    """Predicts the costs of many plans for one graph.

    Args:
        groups: the groups of the graph.

    Attributes:
        vectors: int64[n] or [parts, n] each: the units along every labelled dimension of the graph, each vector once.
        dims: node -> (dimension, index of its vector) of its labelled dimensions.
    """

    def __init__(self, groups: Groups) -> None:
        self._graph = groups.labelled.graph
        self._root = groups.root
        self.vectors: list[NDArray[np.int64]] = []
        self._at: dict[tuple[tuple[int, ...], bytes], int] = {}
        self.dims: dict[Node, list[tuple[int, int]]] = {}
        for node, found in groups.labelled.axes.items():
            for axes in found if isinstance(found, tuple) else (found,):
                if isinstance(axes, Axes):
                    dims = [(dim, self._index(vector.numpy())) for dim, vector in axes.labels.items()]
                    dims += [(dim, self._index(ragged.rows.numpy())) for dim, ragged in axes.ragged.items()]
                    self.dims.setdefault(node, dims)
        self._costly = list(node_macs(self._graph, self._full))
        self._moved = [node for node in self._graph.nodes if _is_moved(node)]
        self._tensors = self._stored()

    def predict(self, alive: NDArray[np.bool_]) -> Costs:
        """Return the costs of the graph after a cut; alive: bool[labels], the labels that are kept."""
        return self.at(self.counts(alive))

    def counts(self, alive: NDArray[np.bool_]) -> list[int]:
        """Return how many units of each vector a cut keeps; alive: bool[labels], the labels that are kept."""
        # every part that is kept keeps the same number of units, and a dropped part keeps none
        return [int(alive[vector].sum(-1).max()) for vector in self.vectors]

    def sizes(self, counts: Sequence[int]) -> Callable[[Node], tuple[int, ...]]:
        """Return the function that tells the shape of a node's tensor; counts: units of each vector that are kept."""

        def sizes(node: Node) -> tuple[int, ...]:
            shape = list(self._full(node))
            for dim, vector in self.dims.get(node, ()):
                shape[dim] = counts[vector]
            return tuple(shape)

        return sizes

    def at(self, counts: Sequence[int]) -> Costs:
        """Return the costs of the graph whose vectors keep some numbers of units."""
        sizes = self.sizes(counts)
        numel = [math.prod(sizes(node)) for node, _, _ in self._tensors]
        return Costs(
            params=sum(n for n, (_, trained, _) in zip(numel, self._tensors, strict=True) if trained),
            macs=sum(self._macs(node, sizes) for node in self._costly),
            bytes=sum(n * size for n, (_, _, size) in zip(numel, self._tensors, strict=True)),
        )

    def work(self, alive: NDArray[np.bool_]) -> float:
        """Return the MACs after a cut, and `MOVED` for each number of the results: a rough measure of the time.

        MACs alone would take a layer of few channels on a large map for a cheap one.

        Args:
            alive: bool[labels], the labels that are kept.
        """
        sizes = self.sizes(self.counts(alive))
        moved = sum(math.prod(sizes(node)) for node in self._moved) // self._graph.batch
        return float(sum(self._macs(node, sizes) for node in self._costly) + MOVED * moved)

    def _macs(self, node: Node, sizes: Callable[[Node], tuple[int, ...]]) -> int:
        rule = rules.find(node.target)
        assert rule is not None
        assert rule.macs is not None
        return rule.macs(sizes, node) // self._graph.batch

    def _index(self, labels: NDArray[np.int64]) -> int:
        units = self._root[labels]
        key = (units.shape, units.tobytes())
        if key not in self._at:
            self._at[key] = len(self.vectors)
            self.vectors.append(units)
        return self._at[key]

    @staticmethod
    def _full(node: Node) -> tuple[int, ...]:
        return tuple(node.meta["val"].shape)

    def _stored(self) -> list[tuple[Node, bool, int]]:
        """Return (node, whether it is a parameter, bytes per number) of every stored tensor, each once."""
        found: dict[int, tuple[Node, bool, int]] = {}
        for node in self._graph.nodes:
            if _is_stored(node):
                tensor = self._graph.tensor(node)
                found.setdefault(id(tensor), (node, isinstance(tensor, nn.Parameter), tensor.element_size()))
        return list(found.values())

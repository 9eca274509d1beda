"""A graph with its labels, and the places where its channels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.labels import Axes, Store
from pfpcli.graph.graph import Graph
from pfpcli.graph.invariant import InvariantError


@dataclass(frozen=True)
class Contraction:
    """A call that sums over labelled channels of one operand.

    Attributes:
        node: the call.
        x: the operand whose channels are read.
        dim: the dimension of `x` along which they lie.
        labels: int64[x.shape[dim]], the labels that are read; those of all parts if the dimension is ragged.
        weight: the operand that holds the weights; None for a sum or a product of activations.
        factor: the other operand of a product of activations, e.g. the keys of an attention; otherwise None.
        issued: int64[C_out], the labels of the channels that the call makes, or None.
    """

    node: Node
    x: Node
    dim: int
    labels: Tensor
    weight: Node | None = None
    factor: Node | None = None
    issued: Tensor | None = None


@dataclass(frozen=True)
class Labelled:
    """A graph with its labels.

    Attributes:
        graph: the graph.
        axes: the labels of every node whose value is a tensor; a tuple of them for a node with several results.
        store: the ties, balances and reasons.
        contractions: every call that reads channels, in graph order.
        unknown: nodes whose op has no rule, in graph order.
    """

    graph: Graph
    axes: dict[Node, Any]
    store: Store
    contractions: list[Contraction]
    unknown: list[Node]

    def check(self) -> None:
        """Check what every step after labelling relies on.

        Every tensor has axes of its own shape; every label vector is as long as its dimension and holds labels of the
        store; inputs and outputs of the network are frozen; every contraction reads labels of the store.

        Raises:
            InvariantError: one of these does not hold.
        """
        vectors: dict[int, tuple[Node, Tensor]] = {}
        for node in self.graph.nodes:
            if node.op != "output":
                vectors |= {
                    id(vector): (node, vector) for vector in _checked(node, node.meta["val"], self.axes.get(node))
                }
        vectors |= {id(each.labels): (each.node, each.labels) for each in self.contractions}
        self._check_range(list(vectors.values()))
        frozen = self.store.frozen
        for node in (*self.graph.inputs, *self.graph.outputs):
            for axes in _flat(self.axes.get(node)):
                for vector in axes.vectors:
                    if not frozen[vector].all():
                        label = vector[~frozen[vector]][0]
                        raise InvariantError(f"node {node}: label {label} is free, expected a frozen input or output")

    def _check_range(self, vectors: list[tuple[Node, Tensor]]) -> None:
        if not vectors:
            return
        low, high = torch.cat([vector.flatten() for _, vector in vectors]).aminmax()
        if low >= 0 and high < self.store.count:
            return
        wrong = ((node, label) for node, vector in vectors for label in vector.flatten().tolist())
        node, label = next((node, label) for node, label in wrong if not 0 <= label < self.store.count)
        raise InvariantError(f"node {node}: has label {label}, expected 0 to {self.store.count - 1}")


def _checked(node: Node, value: Any, axes: Any) -> list[Tensor]:
    """Check that a value has axes of its shape, and label vectors of their lengths; return the vectors."""
    if isinstance(value, (tuple, list)):
        found = axes if isinstance(axes, tuple) else ()
        if len(found) != len(value) and any(isinstance(part, Tensor) for part in value):
            raise InvariantError(f"node {node}: has axes for {len(found)} results, expected {len(value)}")
        return [vector for part, each in zip(value, found, strict=False) for vector in _checked(node, part, each)]
    if not isinstance(value, Tensor):
        return []
    if not isinstance(axes, Axes):
        raise InvariantError(f"node {node}: has {axes!r}, expected the axes of a tensor")
    if axes.shape != tuple(value.shape):
        raise InvariantError(f"node {node}: has axes of shape {axes.shape}, expected {tuple(value.shape)}")
    vectors = [(dim, labels, axes.shape[dim : dim + 1]) for dim, labels in axes.labels.items()]
    for dim, ragged in axes.ragged.items():
        sizes = (axes.shape[part] // ragged.span for part in ragged.parts)
        vectors.append((dim, ragged.labels, (*sizes, *axes.shape[dim : dim + 1])))
    for dim, labels, expected in vectors:
        if dim not in range(len(axes.shape)) or labels.shape != expected:
            shape = tuple(labels.shape)
            raise InvariantError(f"node {node}: has labels of shape {shape} along dimension {dim}, expected {expected}")
    return [labels for _, labels, _ in vectors]


def _flat(axes: Any) -> list[Axes]:
    """Return the axes of all results of a node."""
    return [each for each in (axes if isinstance(axes, tuple) else (axes,)) if isinstance(each, Axes)]

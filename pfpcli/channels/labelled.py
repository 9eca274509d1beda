"""A graph with its labels, and the places where its channels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

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
        checked: dict[int, Tensor] = {}
        for node in self.graph.nodes:
            if node.op != "output":
                self._check_value(node, node.meta["val"], self.axes.get(node), checked)
        frozen = self.store.frozen
        for node in (*self.graph.inputs, *self.graph.outputs):
            for axes in _flat(self.axes.get(node)):
                for vector in axes.vectors:
                    if not frozen[vector].all():
                        label = vector[~frozen[vector]][0]
                        raise InvariantError(f"node {node}: label {label} is free, expected a frozen input or output")
        for each in self.contractions:
            self._check_vector(each.node, "labels that are read", each.labels, checked)

    def _check_value(self, node: Node, value: Any, axes: Any, checked: dict[int, Tensor]) -> None:
        """Check the axes of a value; `checked` holds the vectors that were found to be right."""
        if isinstance(value, (tuple, list)):
            found = axes if isinstance(axes, tuple) else (None,) * len(value)
            if len(found) != len(value):
                raise InvariantError(f"node {node}: has axes for {len(found)} results, expected {len(value)}")
            for part, each in zip(value, found, strict=True):
                self._check_value(node, part, each, checked)
        elif isinstance(value, Tensor):
            if not isinstance(axes, Axes):
                raise InvariantError(f"node {node}: has {axes!r}, expected the axes of a tensor")
            if axes.shape != tuple(value.shape):
                raise InvariantError(f"node {node}: has axes of shape {axes.shape}, expected {tuple(value.shape)}")
            self._check_axes(node, axes, checked)

    def _check_axes(self, node: Node, axes: Axes, checked: dict[int, Tensor]) -> None:
        for dim, vector in axes.labels.items():
            expected = axes.shape[dim : dim + 1]
            if dim < 0 or vector.shape != expected:
                raise InvariantError(
                    f"node {node}: has labels of shape {tuple(vector.shape)} along dimension {dim}, expected {expected}"
                )
            self._check_vector(node, f"labels along dimension {dim}", vector, checked)
        for dim, ragged in axes.ragged.items():
            sizes = tuple(axes.shape[part] // ragged.span for part in ragged.parts)
            if tuple(ragged.labels.shape) != (*sizes, axes.shape[dim]):
                raise InvariantError(
                    f"node {node}: has labels of shape {tuple(ragged.labels.shape)} along ragged dimension {dim}, "
                    f"expected {(*sizes, axes.shape[dim])}"
                )
            self._check_vector(node, f"labels along dimension {dim}", ragged.labels, checked)

    def _check_vector(self, node: Node, what: str, labels: Tensor, checked: dict[int, Tensor]) -> None:
        if id(labels) in checked or not labels.numel():
            return
        low, high = map(int, labels.aminmax())
        if low < 0 or high >= self.store.count:
            raise InvariantError(
                f"node {node}: has {what} between {low} and {high}, expected 0 to {self.store.count - 1}"
            )
        checked[id(labels)] = labels


def _flat(axes: Any) -> list[Axes]:
    """Return the axes of all results of a node."""
    return [each for each in (axes if isinstance(axes, tuple) else (axes,)) if isinstance(each, Axes)]

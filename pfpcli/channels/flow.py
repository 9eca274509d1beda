"""Flow: one walk over the graph that gives every tensor its labels.

Each op's rule (pfpcli/ops) says where the labels go. What is not known is frozen: an op without a rule freezes the
labels that reach it. Everything after this (groups, costs, cutting, masking) only reads the labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.labels import Axes, Ragged, Settled, Store, spread, without_ragged
from pfpcli.graph.graph import Graph, is_constant, owner


@dataclass(frozen=True)
class Contraction:
    """A place where labelled channels are summed away: what a layer reads, and with which weights.

    Attributes:
        node: the call.
        x: the operand whose channels are read.
        dim: the dimension of `x` that is read.
        labels: int64[x.shape[dim]], the labels read.
        weight: the operand that holds the weights, or None (a plain sum, a product of activations).
        factor: the other operand of a product of activations, e.g. the keys of an attention, or None.
        issued: int64[C_out], the labels of the channels it makes, or None.
    """

    node: Node
    x: Node
    dim: int
    labels: Tensor
    weight: Node | None = None
    factor: Node | None = None
    issued: Tensor | None = None


@dataclass
class Labelled:
    """A graph with its labels.

    Attributes:
        graph: the graph.
        axes: the labels of every tensor-valued node (a tuple of them for a node with several results).
        store: the ties and reasons.
        contractions: every place where channels are read, in graph order.
        unknown: nodes whose op has no rule, in graph order.
    """

    graph: Graph
    axes: dict[Node, Any]
    store: Store
    contractions: list[Contraction]
    unknown: list[Node]


class Flow:
    """What a rule's `flow` works with: the node at hand and the labels so far."""

    def __init__(self, labelled: Labelled, node: Node) -> None:
        self.node = node
        self.store = labelled.store
        self._labelled = labelled

    @property
    def shape(self) -> tuple[int, ...]:
        """The concrete sizes of the result (of the first of several)."""
        value = self.node.meta["val"]
        return tuple((value if isinstance(value, Tensor) else value[0]).shape)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The concrete sizes of each of several results."""
        return [tuple(value.shape) for value in self.node.meta["val"]]

    def result(self, labels: dict[int, Tensor | None]) -> Axes:
        """The result's labels; dimensions of size 1 and vectors of None carry none."""
        kept = {dim: vector for dim, vector in labels.items() if vector is not None and self.shape[dim] > 1}
        return Axes(self.shape, kept, f"the result of {self.node.name}")

    def freeze(self, axes: Axes, reason: str, dims: Iterable[int] | None = None) -> None:
        """Freeze the labels along some dimensions (all of them by default)."""
        for dim in (*axes.labels, *axes.ragged) if dims is None else dims:
            if dim in axes.labels:
                self.store.freeze(axes.labels[dim], reason)
            if dim in axes.ragged:
                self.store.freeze(axes.ragged[dim].labels.flatten(), reason)

    def unragged(self, axes: Axes, dim: int | None = None) -> Axes:
        """The same without ragged dimensions (or without one): position j of all parts is tied."""
        return without_ragged(self.store, axes, dim)

    def split_parameter(self, node: Node, axes: Axes, channels: Tensor | None, groups: int) -> Tensor:
        """Give dimension 1 of a parameter other labels in each of equal blocks along dimension 0.

        Args:
            node: the parameter.
            axes: its labels.
            channels: int64[groups * size], or None if it is split already.
            groups: number of blocks.

        Returns:
            int64[groups * size], the labels it has now; tied, if it is no parameter or has been split before.
        """
        if 1 in axes.ragged:
            held = axes.ragged[1].labels.flatten()
            if channels is not None:
                self.store.tie(held, channels)
            return held
        assert channels is not None
        rows = channels.view(groups, -1)
        if node.op == "get_attr":
            axes.labels.pop(1, None)
            axes.ragged[1] = Ragged((0,), rows, axes.shape[0] // groups)
        elif 1 in axes.labels:
            self.store.tie(self.store.tie_rows(rows), axes.labels[1])
        return channels

    def aligned(self, *ends: tuple[Axes, int]) -> bool:
        """Tie ragged dimensions that go together part by part; False if that cannot be done."""
        found = [axes.ragged.get(dim) for axes, dim in ends]
        first = found[0]
        if first is None:
            return False
        if any(r is None or r.parts != first.parts or r.labels.shape != first.labels.shape for r in found):
            return False
        for other in found[1:]:
            if other is not None:
                self.store.tie(first.labels.flatten(), other.labels.flatten())
        return True

    def join(self, *ends: tuple[Axes, int]) -> Tensor | None:
        """Tie the labels along dimensions that go together; returns the labels they share, None if they are fixed."""
        vectors = [axes.labels.get(dim) for axes, dim in ends]
        labelled = [vector for vector in vectors if vector is not None]
        for vector in labelled[1:]:
            self.store.tie(labelled[0], vector)
        if labelled and len(labelled) < len(vectors):
            fixed = next(axes for (axes, _), vector in zip(ends, vectors, strict=True) if vector is None)
            self.store.freeze(labelled[0], f"joined to {fixed.origin}")
            return None
        return labelled[0] if labelled else None

    def join_vector(self, vector: Tensor | None, axes: Axes) -> Tensor | None:
        """Tie labels to the only dimension of a bias and the like."""
        return self.join((Axes(axes.shape, {} if vector is None else {0: vector}), 0), (axes, 0))

    def tie_blocks(self, vector: Tensor | None, blocks: int) -> None:
        """Position j of equal blocks of a vector lives and dies together."""
        if vector is not None:
            self.store.tie_rows(vector.view(blocks, -1))

    def balance_blocks(self, vector: Tensor | None, blocks: int) -> None:
        """Equal blocks of a vector have to lose as many."""
        if vector is not None and blocks > 1:
            self.store.balance(vector.view(blocks, -1))

    def tensor(self, node: Node) -> Tensor:
        """The constant behind a `get_attr` node."""
        return self._labelled.graph.tensor(node)

    def read(self, x: Node, x_axes: Axes, dim: int, weight: Node | None = None, issued: Tensor | None = None) -> None:
        """Note that the channels of `x` along `dim` are summed away here, together with those of `weight`."""
        if dim in x_axes.ragged:
            labels = x_axes.ragged[dim].labels.flatten()
        else:
            labels = x_axes.labels.get(dim, torch.zeros(x_axes.shape[dim], dtype=torch.int64))
        if weight is None or is_constant(weight):
            found = Contraction(self.node, x, dim, labels, weight, None, issued)
        else:
            found = Contraction(self.node, x, dim, labels, None, weight)
        self._labelled.contractions.append(found)

    def inexact(self, vector: Tensor | None, what: str) -> None:
        """Mark labels as feeding a statistic across channels."""
        if vector is not None:
            self.store.mark_inexact(vector, f"{what} ({owner(self.node)})")

    def join_broadcast(self, operands: Iterable[Axes], dim: int) -> Tensor | None:
        """Tie what meets along a dimension of the result; an operand that is broadcast there puts no constraint."""
        return self.join(*self.meeting(operands, dim))

    def meeting(self, operands: Iterable[Axes], dim: int) -> list[tuple[Axes, int]]:
        """The operands that are not broadcast along a dimension of the result."""
        rank, size = len(self.shape), self.shape[dim]
        ends = [(x, dim - rank + len(x.shape)) for x in operands]
        return [(x, d) for x, d in ends if d >= 0 and x.shape[d] == size > 1]

    def moved(self, x: Axes, move: Callable[[Tensor], Any]) -> Any:
        """Run a data movement on the labels of `x`: the op itself, on the places of labels instead of numbers."""
        many = isinstance(self.node.meta["val"], (tuple, list))
        found = [Axes(shape, {}, x.origin) for shape in (self.shapes if many else [self.shape])]
        sources: list[tuple[tuple[int, ...], Tensor]] = [((dim,), vector) for dim, vector in x.labels.items()]
        sources += [((*ragged.parts, dim), ragged.labels) for dim, ragged in x.ragged.items()]
        for dims, labels in sorted(sources, key=lambda source: source[0][-1]):
            if not self._follow(found, move, x.shape, dims, labels):
                self._follow(found, move, x.shape, dims[-1:], self.store.tie_rows(labels.reshape(-1, labels.shape[-1])))
        for axes in found:
            self._label_parts(axes)
        return tuple(found) if many else found[0]

    def _follow(
        self,
        found: list[Axes],
        move: Callable[[Tensor], Any],
        shape: tuple[int, ...],
        dims: tuple[int, ...],
        labels: Tensor,
    ) -> bool:
        """Follow labels along some dimensions through a movement; False if it tears parts apart."""
        places = spread(torch.arange(labels.numel()).view(labels.shape), dims, shape)
        moved = move(places)
        results = moved if isinstance(moved, (tuple, list)) else [moved]
        settled = [Settled.of(result, labels, free_dims(self.node, i)) for i, result in enumerate(results)]
        if labels.dim() > 1 and not all(each.is_ordered for each in settled):
            return False
        for each, axes in zip(settled, found, strict=True):
            self._take(each, axes)
        return True

    def _label_parts(self, axes: Axes) -> None:
        """Give the indices that tell parts apart labels of their own: a whole part may go."""
        for ragged in axes.ragged.values():
            for i, dim in enumerate(ragged.parts):
                if dim not in axes.labels and dim not in axes.ragged:
                    axes.labels[dim] = self.store.part_labels(axes.shape[dim])
                if dim in axes.labels and self.store.are_parts(axes.labels[dim]):
                    self.store.own(axes.labels[dim], ragged.labels.movedim(i, -1))
                else:
                    self.store.balance(ragged.rows)

    def _take(self, settled: Settled, axes: Axes) -> None:
        """Write down the labels of a movement's result."""
        if settled.free is None:
            reason = f"picked by its position, or put into the batch, in {owner(self.node)}"
            self.store.freeze(settled.labels.flatten(), reason)
            return
        if self._is_owner(settled, axes):
            return
        if settled.free in axes.labels or settled.free in axes.ragged:
            # an element that belongs to two channels can follow one of them, if the other never dies
            reason = f"flattened together with other channels in {owner(self.node)}"
            first = axes.labels.get(settled.free)
            if first is None or settled.parts or settled.labels.unique().numel() <= first.unique().numel():
                self.store.freeze(settled.labels.flatten(), reason)
            else:
                self.store.freeze(first, reason)
                axes.labels[settled.free] = settled.labels
        elif settled.parts and settled.is_ordered:
            ragged = axes.ragged[settled.free] = Ragged(settled.parts, settled.labels)
            self.store.balance(ragged.rows, fixed=False)
        else:
            # only whole hyperplanes can be cut out of a tensor
            axes.labels[settled.free] = self.store.tie_rows(settled.labels.reshape(-1, settled.labels.shape[-1]))

    def _is_owner(self, settled: Settled, axes: Axes) -> bool:
        """Whether these are parts that are flattened together with what they own; if it is there first, they make room.

        What is left of both, in one dimension, is what is left of what they own.
        """
        assert settled.free is not None
        there = axes.labels.get(settled.free)
        if settled.free in axes.ragged:
            there = axes.ragged[settled.free].labels
        if there is None:
            return False
        if not settled.parts and self.store.are_parts(settled.labels):
            self.store.own(settled.labels, there)
            return True
        if there.dim() == 1 and self.store.are_parts(there):
            self.store.own(there, settled.labels)
            del axes.labels[settled.free]
        return False


def free_dims(node: Node, result: int = 0) -> list[int]:
    """The dimensions of a node's value, or of one of its results, whose size depends on the batch."""
    noted = node.meta.get("free", [])
    return noted[result] if result < len(noted) else []

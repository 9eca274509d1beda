"""The handle that the rule of an op works with: the labels of the call's operands in, those of its result out.

A rule (`channels.rules`) says where labels go. This module has the operations that rules share: tying what meets,
freezing, running a movement on labels, noting which channels are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels.labelled import Contraction, Labelled
from pfpcli.channels.labels import Axes, Ragged, spread, without_ragged
from pfpcli.channels.moved import Moved
from pfpcli.graph.graph import is_constant, owner


class Flow:
    """One call, and the labels of the graph up to that call.

    Attributes:
        node: the call.
        store: hands labels out and records ties, balances and reasons.
    """

    def __init__(self, labelled: Labelled, node: Node) -> None:
        self.node = node
        self.store = labelled.store
        self._labelled = labelled

    # The call ----------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes of the result; of the first result if there are several."""
        value = self.node.meta["val"]
        return tuple((value if isinstance(value, Tensor) else value[0]).shape)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The sizes of each of several results."""
        return [tuple(value.shape) for value in self.node.meta["val"]]

    def tensor(self, node: Node) -> Tensor:
        """Return the tensor of a `get_attr` node."""
        return self._labelled.graph.tensor(node)

    def result(self, labels: dict[int, Tensor | None]) -> Axes:
        """Return the axes of the result; dimensions of size 1, and those whose vector is None, carry no labels."""
        kept = {dim: vector for dim, vector in labels.items() if vector is not None and self.shape[dim] > 1}
        return Axes(self.shape, kept, f"the result of {self.node.name}")

    # Freezing and reading ----------------------------------------------------------------------------------------

    def freeze(self, axes: Axes, reason: str, dims: Iterable[int] | None = None) -> None:
        """Freeze the labels along some dimensions; along all of them by default."""
        for dim in (*axes.labels, *axes.ragged) if dims is None else dims:
            if dim in axes.labels:
                self.store.freeze(axes.labels[dim], reason)
            if dim in axes.ragged:
                self.store.freeze(axes.ragged[dim].labels.flatten(), reason)

    def inexact(self, vector: Tensor | None, what: str) -> None:
        """Mark labels that a statistic across channels is taken over."""
        if vector is not None:
            self.store.mark_inexact(vector, f"{what} ({owner(self.node)})")

    def read(self, x: Node, x_axes: Axes, dim: int, weight: Node | None = None, issued: Tensor | None = None) -> None:
        """Note that the call sums over the channels of `x` along `dim`, multiplied with `weight` if there is one."""
        if dim in x_axes.ragged:
            labels = x_axes.ragged[dim].labels.flatten()
        else:
            labels = x_axes.labels.get(dim, torch.zeros(x_axes.shape[dim], dtype=torch.int64))
        if weight is None or is_constant(weight):
            found = Contraction(self.node, x, dim, labels, weight, None, issued)
        else:
            found = Contraction(self.node, x, dim, labels, None, weight)
        self._labelled.contractions.append(found)

    # Tying -------------------------------------------------------------------------------------------------------

    def join(self, *ends: tuple[Axes, int]) -> Tensor | None:
        """Tie the labels along dimensions that meet, index by index.

        Args:
            ends: (axes, dimension) each.

        Returns:
            int64[size], the labels that the dimensions share; None if one of them keeps its size, which freezes all.
        """
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
        """Tie labels to the only dimension of a tensor, e.g. of a bias; returns as `join` does."""
        return self.join((Axes(axes.shape, {} if vector is None else {0: vector}), 0), (axes, 0))

    def join_broadcast(self, operands: Iterable[Axes], dim: int) -> Tensor | None:
        """Tie the labels of operands along a dimension of the result; an operand that is broadcast is left out."""
        return self.join(*self.meeting(operands, dim))

    def meeting(self, operands: Iterable[Axes], dim: int) -> list[tuple[Axes, int]]:
        """Return the operands that are not broadcast along a dimension of the result, with their own dimension."""
        rank, size = len(self.shape), self.shape[dim]
        ends = [(x, dim - rank + len(x.shape)) for x in operands]
        return [(x, d) for x, d in ends if d >= 0 and x.shape[d] == size > 1]

    def tie_blocks(self, vector: Tensor | None, blocks: int) -> None:
        """Tie the labels at the same index of equal blocks of a vector."""
        if vector is not None:
            self.store.tie_rows(vector.view(blocks, -1))

    def balance_blocks(self, vector: Tensor | None, blocks: int) -> None:
        """Let equal blocks of a vector lose the same number of labels each."""
        if vector is not None and blocks > 1:
            self.store.balance(vector.view(blocks, -1))

    # Ragged dimensions -------------------------------------------------------------------------------------------

    def unragged(self, axes: Axes, dim: int | None = None) -> Axes:
        """Return the axes without ragged dimensions (or without one): labels at the same index of parts are tied."""
        return without_ragged(self.store, axes, dim)

    def aligned(self, *ends: tuple[Axes, int]) -> bool:
        """Tie the labels along ragged dimensions that meet, part by part; False if their parts differ."""
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

    def split_parameter(self, node: Node, axes: Axes, channels: Tensor | None, groups: int) -> Tensor:
        """Give dimension 1 of a parameter labels of its own in each of equal blocks along dimension 0.

        Args:
            node: the parameter.
            axes: its labels, which change.
            channels: int64[groups * size], or None if the parameter is split already.
            groups: number of blocks.

        Returns:
            int64[groups * size], the labels of the blocks. They are tied to the labels that the dimension had before,
            if `node` is not a parameter or was split before.
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

    # Movements ---------------------------------------------------------------------------------------------------

    def moved(self, x: Axes, move: Callable[[Tensor], Any]) -> Any:
        """Return the axes of the result of a movement.

        Args:
            x: the labels of the operand.
            move: the op itself. It is run on the indices of labels, so that no rule can get the movement wrong.
        """
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
        """Follow labels along some dimensions through a movement; False if the movement tears parts apart."""
        places = spread(torch.arange(labels.numel()).view(labels.shape), dims, shape)
        result = move(places)
        results = result if isinstance(result, (tuple, list)) else [result]
        moved = [Moved.of(each, labels, free_dims(self.node, i)) for i, each in enumerate(results)]
        if labels.dim() > 1 and not all(each.is_ordered for each in moved):
            return False
        for each, axes in zip(moved, found, strict=True):
            self._take(each, axes)
        return True

    def _label_parts(self, axes: Axes) -> None:
        """Give the indices of part dimensions labels of their own, so that a whole part may be dropped."""
        for ragged in axes.ragged.values():
            for i, dim in enumerate(ragged.parts):
                if dim not in axes.labels and dim not in axes.ragged:
                    axes.labels[dim] = self.store.part_labels(axes.shape[dim])
                if dim in axes.labels and self.store.are_parts(axes.labels[dim]):
                    self.store.own(axes.labels[dim], ragged.labels.movedim(i, -1))
                else:
                    self.store.balance(ragged.rows)

    def _take(self, moved: Moved, axes: Axes) -> None:
        """Add the labels of a movement's result to its axes."""
        if moved.free is None:
            reason = f"picked by its position, or put into the batch, in {owner(self.node)}"
            self.store.freeze(moved.labels.flatten(), reason)
            return
        if self._is_owner(moved, axes):
            return
        if moved.free in axes.labels or moved.free in axes.ragged:
            # an element that belongs to two channels can follow one of them if the other one is never dropped
            reason = f"flattened together with other channels in {owner(self.node)}"
            first = axes.labels.get(moved.free)
            if first is None or moved.parts or moved.labels.unique().numel() <= first.unique().numel():
                self.store.freeze(moved.labels.flatten(), reason)
            else:
                self.store.freeze(first, reason)
                axes.labels[moved.free] = moved.labels
        elif moved.parts and moved.is_ordered:
            ragged = axes.ragged[moved.free] = Ragged(moved.parts, moved.labels)
            self.store.balance(ragged.rows, fixed=False)
        else:
            # only whole slices along a dimension can be cut out of a tensor
            axes.labels[moved.free] = self.store.tie_rows(moved.labels.reshape(-1, moved.labels.shape[-1]))

    def _is_owner(self, moved: Moved, axes: Axes) -> bool:
        """Whether a movement flattens labels of parts into the dimension of the labels that they own.

        The owned labels alone then decide which indices of the dimension are kept. If the labels of parts were added to
        the axes first, they are removed, and the result is False.
        """
        assert moved.free is not None
        present = axes.labels.get(moved.free)
        if moved.free in axes.ragged:
            present = axes.ragged[moved.free].labels
        if present is None:
            return False
        if not moved.parts and self.store.are_parts(moved.labels):
            self.store.own(moved.labels, present)
            return True
        if present.dim() == 1 and self.store.are_parts(present):
            self.store.own(present, moved.labels)
            del axes.labels[moved.free]
        return False


def free_dims(node: Node, result: int = 0) -> list[int]:
    """Return the dimensions of a node's value, or of one of its results, whose size depends on the batch."""
    noted = node.meta.get("free", [])
    return noted[result] if result < len(noted) else []

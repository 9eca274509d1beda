"""Labels: a number for every index of a tensor, which says with which channel the index is dropped.

Every dimension of every tensor in a graph either carries a *label vector*, one label for each index, or carries none
and keeps its size. A `Store` hands labels out and records what the rules say about them: *tied* labels are dropped
together; rows of labels in *balance* each lose the same number of labels; a label that *owns* others is dropped only
with them; *frozen* labels are never dropped. Label 0 is never dropped either.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """Labels along one dimension that differ from part to part.

    The parts are the indices of other dimensions: the heads of an attention, each with channels of its own. Every part
    keeps the same number of channels.

    Attributes:
        parts: the dimensions whose indices are the parts.
        labels: int64[*sizes of parts, size].
        span: consecutive indices of the only part dimension that share their labels.
    """

    parts: tuple[int, ...]
    labels: Tensor
    span: int = 1

    @property
    def rows(self) -> Tensor:
        """int64[number of parts, size]: the labels of each part."""
        return self.labels.reshape(-1, self.labels.shape[-1])


@dataclass(frozen=True)
class Axes:
    """The labels of one tensor.

    Attributes:
        shape: the sizes of the tensor.
        labels: dimension -> int64[shape[dimension]], the label of each index; other dimensions keep their size.
        origin: the tensor in words, for the reason that is given where it freezes other labels.
        ragged: dimension -> the labels along it, where these differ from part to part.
    """

    shape: tuple[int, ...]
    labels: dict[int, Tensor] = field(default_factory=dict)
    origin: str = "a tensor of fixed size"
    ragged: dict[int, Ragged] = field(default_factory=dict)

    def dim(self, dim: int) -> int:
        """Return a dimension counted from the front; negative ones are counted from the back."""
        return dim % len(self.shape)

    @property
    def vectors(self) -> list[Tensor]:
        """int64[n] each: the labels along every labelled dimension; those of all parts in one vector."""
        return [*self.labels.values(), *(ragged.labels.flatten() for ragged in self.ragged.values())]


class Store:
    """Hands labels out and records the statements that rules make about them.

    Attributes:
        count: labels handed out, with label 0.
        inexact: (labels, the statistic that changes when they are dropped).
        balances: (int64[parts, size], whether every row has to be kept), see `balance`.
        owned: (label of a part, the labels that it owns).
        part_vectors: the label vectors of dimensions whose indices are parts.
    """

    def __init__(self) -> None:
        self.count = 1
        self.inexact: list[tuple[Tensor, str]] = []
        self.balances: list[tuple[Tensor, bool]] = []
        self.owned: list[tuple[int, Tensor]] = []
        self.part_vectors: list[Tensor] = []
        self._parts: set[int] = {0}
        self._ties: list[Tensor] = []
        self._frozen: list[tuple[Tensor, str]] = []

    def copy(self) -> Store:
        """Return a store with the same contents; statements to one of the two do not reach the other."""
        other = Store()
        for name, value in vars(self).items():
            setattr(other, name, copy.copy(value))
        return other

    def fresh(self, count: int) -> Tensor:
        """Return new labels: int64[count]."""
        self.count += count
        return torch.arange(self.count - count, self.count)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Tie the labels at the same index of two vectors; a label that is tied to 0 is frozen."""
        if first is second:
            return
        pairs = torch.stack([first, second])
        immortal = (pairs == 0).any(0)
        if immortal.any():
            self.freeze(pairs[:, immortal].flatten(), "joined to something of fixed size")
            pairs = pairs[:, ~immortal]
        self._ties.append(pairs)

    def tie_rows(self, rows: Tensor) -> Tensor:
        """Tie the labels at the same index of all rows, int64[n, size]; return the first row, int64[size]."""
        if len(rows) > 1:
            self.tie(rows[0].expand_as(rows).flatten(), rows.flatten())
        return rows[0].clone()

    def balance(self, rows: Tensor, *, fixed: bool = True) -> None:
        """Let every row lose the same number of labels.

        Args:
            rows: int64[parts, size].
            fixed: whether every row has to be kept; otherwise the label of a part that owns a row may be dropped.
        """
        if len(rows) > 1:
            self.balances.append((rows, fixed))

    def part_labels(self, count: int) -> Tensor:
        """Return new labels for a dimension whose indices are parts, e.g. heads: int64[count]."""
        labels = self.fresh(count)
        self.part_vectors.append(labels)
        self._parts.update(labels.tolist())
        return labels

    def are_parts(self, labels: Tensor) -> bool:
        """Whether all labels came from `part_labels`."""
        return self._parts.issuperset(labels.unique().tolist())

    def own(self, parts: Tensor, labels: Tensor) -> None:
        """Let the labels of parts own other labels, which are dropped with them.

        Args:
            parts: int64[n].
            labels: int64[..., n], at each index of the last dimension the labels that the part at that index owns.
        """
        for part in parts.unique().tolist():
            if part:
                self.owned.append((part, labels[..., parts == part].unique()))

    def freeze(self, labels: Tensor, reason: str) -> None:
        """Say that labels are never dropped, and why."""
        labels = labels.unique()
        self._frozen.append((labels[labels != 0], reason))

    def mark_inexact(self, labels: Tensor, reason: str) -> None:
        """Say that dropping labels changes a statistic across channels."""
        self.inexact.append((labels.unique(), reason))

    @property
    def ties(self) -> Tensor:
        """int64[2, n]: pairs of labels that are dropped together."""
        return torch.cat(self._ties, 1) if self._ties else torch.zeros(2, 0, dtype=torch.int64)

    @property
    def frozen(self) -> Tensor:
        """bool[count]: label 0 and the labels that `freeze` named; not the labels that are tied to them."""
        frozen = torch.zeros(self.count, dtype=torch.bool)
        frozen[0] = True
        if self._frozen:
            frozen[torch.cat([labels for labels, _ in self._frozen])] = True
        return frozen

    def resolve(self) -> tuple[NDArray[np.int64], dict[int, str]]:
        """Follow the ties.

        Returns:
            root: int64[count], the smallest label that each label is tied to; root[0] = 0.
            frozen: root -> the first reason that was given for freezing one of its labels.
        """
        root = _connected(self.count, self.ties.unique(dim=1).numpy())
        frozen: dict[int, str] = {}
        for labels, reason in self._frozen:
            for label in np.unique(root[labels.numpy()]).tolist():
                frozen.setdefault(label, reason)
        return root, frozen


def _connected(count: int, ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the smallest member of each connected component: int64[count]; ties: int64[2, n]."""
    root = np.arange(count)
    while True:
        ends = root[ties]
        low, high = ends.min(0), ends.max(0)
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while not ((shorter := root[root]) == root).all():
            root = shorter


def spread(labels: Tensor, dims: Sequence[int], shape: Sequence[int], *, full: bool = True) -> Tensor:
    """Return values along some dimensions as a tensor with all dimensions; nothing is copied.

    Args:
        labels: [sizes of dims].
        dims: the dimensions, in the order of those of `labels`.
        shape: the sizes of all dimensions.
        full: whether the other dimensions are expanded to their sizes; otherwise they have size 1.
    """
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    sizes = [1] * len(shape)
    for dim in dims:
        sizes[dim] = shape[dim]
    wide = labels.permute(order).reshape(sizes)
    return wide.expand(*shape) if full else wide


def along(axes: Axes, dim: int) -> Tensor | None:
    """Return the labels along a dimension, ragged or not: int64, broadcastable to the shape; None without labels."""
    ragged = axes.ragged.get(dim) or (Ragged((), axes.labels[dim]) if dim in axes.labels else None)
    if ragged is None:
        return None
    labels = ragged.labels.repeat_interleave(ragged.span, 0) if ragged.span > 1 else ragged.labels
    return spread(labels, (*ragged.parts, dim), axes.shape, full=False)


def without_ragged(store: Store, axes: Axes, only: int | None = None) -> Axes:
    """Return the axes without ragged dimensions; the labels at the same index of all parts are tied in the store.

    Args:
        store: the store of the labels.
        axes: the labels of a tensor.
        only: the one dimension that is to become plain; by default all do.
    """
    tied = {d: store.tie_rows(r.rows) for d, r in axes.ragged.items() if only is None or d == only}
    ragged = {d: r for d, r in axes.ragged.items() if d not in tied}
    return Axes(axes.shape, axes.labels | tied, axes.origin, ragged)

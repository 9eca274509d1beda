"""Labels: with which channel does an index of a tensor live and die?

Every dimension of every tensor in the graph either carries a *label vector*, one label per index, or it does not and
then never gets smaller. Labels are numbers handed out by a `Store`; 0 never dies. Rules (pfpcli/ops) *tie* labels that
must live and die together, *balance* rows of labels of which as many must stay, let a label *own* others that go when
it goes, and *freeze* labels that must not die.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class Ragged:
    """Labels along a dimension that are others for each index of some other dimensions, the parts.

    Heads of an attention: the width of each head has channels of its own. What stays is as many in each part.

    Attributes:
        parts: the other dimensions.
        labels: int64[*parts, size].
        span: consecutive indices of the (only) part dimension that share their labels.
    """

    parts: tuple[int, ...]
    labels: Tensor
    span: int = 1

    @property
    def rows(self) -> Tensor:
        """int64[parts, size]: the labels of each part."""
        return self.labels.reshape(-1, self.labels.shape[-1])


@dataclass(frozen=True)
class Axes:
    """The labels of one tensor.

    Attributes:
        shape: its concrete sizes.
        labels: dimension -> int64[shape[dimension]], the label of each index; dimensions that never shrink are absent.
        origin: where it comes from, for the reason given when it freezes what it meets.
        ragged: dimension -> the labels along it where they depend on the index of other dimensions.
    """

    shape: tuple[int, ...]
    labels: dict[int, Tensor] = field(default_factory=dict)
    origin: str = "a tensor of fixed size"
    ragged: dict[int, Ragged] = field(default_factory=dict)

    def dim(self, dim: int) -> int:
        """A dimension counted from the front."""
        return dim % len(self.shape)

    @property
    def vectors(self) -> list[Tensor]:
        """int64[n] each: the labels of every labelled dimension, those of all parts in one."""
        return [*self.labels.values(), *(ragged.labels.flatten() for ragged in self.ragged.values())]


class Store:
    """Hands out labels and remembers what was said about them."""

    def __init__(self) -> None:
        self.count = 1
        self.inexact: list[tuple[Tensor, str]] = []
        self.balances: list[tuple[Tensor, bool]] = []
        self.owned: list[tuple[int, Tensor]] = []
        self.part_vectors: list[Tensor] = []
        self._parts: set[int] = {0}
        self._ties: list[Tensor] = []
        self._frozen: list[tuple[Tensor, str]] = []

    def fresh(self, count: int) -> Tensor:
        """New labels: int64[count]."""
        self.count += count
        return torch.arange(self.count - count, self.count)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Labels at the same place of two vectors live and die together; what is tied to 0 is frozen."""
        if first is second:
            return
        pairs = torch.stack([first, second])
        immortal = (pairs == 0).any(0)
        if immortal.any():
            self.freeze(pairs[:, immortal].flatten(), "joined to something of fixed size")
            pairs = pairs[:, ~immortal]
        self._ties.append(pairs)

    def balance(self, rows: Tensor, *, fixed: bool = True) -> None:
        """Each row of labels has to lose as many; rows: int64[parts, size].

        Where their number is not fixed, a row may go as a whole, if a part label owns it.
        """
        if len(rows) > 1:
            self.balances.append((rows, fixed))

    def part_labels(self, count: int) -> Tensor:
        """Labels for the indices of a dimension that tells parts apart, e.g. heads: int64[count]."""
        labels = self.fresh(count)
        self.part_vectors.append(labels)
        self._parts.update(labels.tolist())
        return labels

    def are_parts(self, labels: Tensor) -> bool:
        """Whether all labels came from `part_labels`."""
        return self._parts.issuperset(labels.unique().tolist())

    def own(self, parts: Tensor, labels: Tensor) -> None:
        """What goes when a part goes.

        Args:
            parts: int64[n].
            labels: int64[..., n], at each place what belongs to the part at that place.
        """
        for part in parts.unique().tolist():
            if part:
                self.owned.append((part, labels[..., parts == part].unique()))

    def tie_rows(self, rows: Tensor) -> Tensor:
        """Tie the rows to each other, position by position; returns one of them."""
        if len(rows) > 1:
            self.tie(rows[0].expand_as(rows).flatten(), rows.flatten())
        return rows[0].clone()

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These labels never die."""
        labels = labels.unique()
        self._frozen.append((labels[labels != 0], reason))

    def mark_inexact(self, labels: Tensor, reason: str) -> None:
        """Dropping these labels changes a statistic taken across channels."""
        self.inexact.append((labels.unique(), reason))

    def resolve(self) -> tuple[NDArray[np.int64], dict[int, str]]:
        """What the ties come to.

        Returns:
            root: int64[count], the smallest label each label is tied to; root[0] = 0.
            frozen: root -> the first reason given for freezing one of its labels.
        """
        ties = torch.cat(self._ties, 1).unique(dim=1).numpy() if self._ties else np.zeros((2, 0), np.int64)
        root = _connected(self.count, ties)
        frozen: dict[int, str] = {}
        for labels, reason in self._frozen:
            for label in np.unique(root[labels.numpy()]).tolist():
                frozen.setdefault(label, reason)
        return root, frozen


def _connected(count: int, ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest member of each connected component: int64[count]; ties: int64[2, n]."""
    root = np.arange(count)
    while True:
        ends = root[ties]
        low, high = ends.min(0), ends.max(0)
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while not ((shorter := root[root]) == root).all():
            root = shorter


@dataclass(frozen=True)
class Settled:
    """Where labels went in a movement.

    Attributes:
        free: the dimension they vary along, None if it is the same label everywhere. Of several, the one with the most
            distinct labels.
        parts: the other dimensions they vary along.
        labels: int64[*parts, size of free].
        is_ordered: whether what is left of each part, in order, is what the movement makes of what is left: neighbours
            stay neighbours, and a part ends before another one begins.
    """

    free: int | None
    parts: tuple[int, ...]
    labels: Tensor
    is_ordered: bool

    @staticmethod
    def of(places: Tensor, source: Tensor, unsized: Sequence[int]) -> Settled:
        """Settle the places where a movement put the labels of `source`: int64[*parts, size].

        A dimension that channels share with the batch (`unsized`) has no fixed number of labels: it is never the free
        one, and its parts are not told apart.
        """
        for dim in range(places.dim()):
            if places.shape[dim] and places.stride(dim) == 0:
                places = places.narrow(dim, 0, 1)
        labels = source.flatten()[places]
        varying = []
        for dim in range(labels.dim()):
            first = labels.narrow(dim, 0, 1) if labels.shape[dim] else labels
            if labels.shape[dim] < 2 or bool((labels == first).all()):
                labels, places = first, places.narrow(dim, 0, min(1, places.shape[dim]))
            else:
                varying.append(dim)
        if not varying:
            return Settled(None, (), labels, True)
        sized = [dim for dim in varying if dim not in unsized]
        if not sized:
            return Settled(None, (), labels, True)
        free = max(sized, key=lambda dim: _line(labels, dim).unique().numel())
        parts = tuple(dim for dim in varying if dim != free)
        sizes = [labels.shape[dim] for dim in (*parts, free)]
        last = [places.movedim(free, -1).reshape(sizes), labels.movedim(free, -1).reshape(sizes)]
        is_ordered = len(sized) == len(varying) and _in_order(last[0], source.shape[-1])
        return Settled(free, parts, last[1], is_ordered)


def _in_order(places: Tensor, size: int) -> bool:
    """Whether lines of places run through parts of some size without leaving one early; places: int64[..., n]."""
    before, after = places[..., :-1], places[..., 1:]
    step = after - before
    inside = (before // size == after // size) & ((step == 0) | (step == 1))
    between = (before % size == size - 1) & (after % size == 0)
    return bool((inside | between).all())


def _line(labels: Tensor, dim: int) -> Tensor:
    return labels.movedim(dim, -1).reshape(-1, labels.shape[dim])[0]


def spread(labels: Tensor, dims: Sequence[int], shape: Sequence[int], *, full: bool = True) -> Tensor:
    """Values along some dimensions as a tensor of the full shape, without copies.

    Args:
        labels: [sizes of dims].
        dims: the dimensions, in the order of those of `labels`.
        shape: the full shape.
        full: expand the other dimensions; otherwise they have size 1.
    """
    order = sorted(range(len(dims)), key=lambda i: dims[i])
    sizes = [1] * len(shape)
    for dim in dims:
        sizes[dim] = shape[dim]
    wide = labels.permute(order).reshape(sizes)
    return wide.expand(*shape) if full else wide


def along(axes: Axes, dim: int) -> Tensor | None:
    """The labels along a dimension, ragged or not: int64, broadcastable to the shape; None if it carries none."""
    ragged = axes.ragged.get(dim) or (Ragged((), axes.labels[dim]) if dim in axes.labels else None)
    if ragged is None:
        return None
    labels = ragged.labels.repeat_interleave(ragged.span, 0) if ragged.span > 1 else ragged.labels
    return spread(labels, (*ragged.parts, dim), axes.shape, full=False)


def without_ragged(store: Store, axes: Axes, only: int | None = None) -> Axes:
    """Axes without ragged dimensions (or without one of them): position j of all parts is tied."""
    evened = {d: store.tie_rows(r.rows) for d, r in axes.ragged.items() if only is None or d == only}
    ragged = {d: r for d, r in axes.ragged.items() if d not in evened}
    return Axes(axes.shape, axes.labels | evened, axes.origin, ragged)

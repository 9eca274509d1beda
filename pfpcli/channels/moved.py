"""Where a movement of elements (a view, a transpose, a split) puts labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Moved:
    """The labels of one result of a movement.

    Attributes:
        free: the dimension along which the labels vary, of several the one with the most distinct labels; None if they
            do not vary.
        parts: the other dimensions along which they vary.
        labels: int64[*sizes of parts, size of free].
        is_ordered: whether a cut before the movement and the same cut after it give the same result: neighbours remain
            neighbours, and a part ends before the next one begins.
    """

    free: int | None
    parts: tuple[int, ...]
    labels: Tensor
    is_ordered: bool

    @staticmethod
    def of(places: Tensor, source: Tensor, unsized: Sequence[int]) -> Moved:
        """Read off along which dimensions the labels vary.

        Args:
            places: int64[shape of the result], for each element its index in the flattened `source`.
            source: int64[*sizes of parts, size], the labels before the movement.
            unsized: dimensions whose size depends on the batch. Such a dimension has no fixed number of labels: it is
                never the free one, and its indices are no parts.
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
        sized = [dim for dim in varying if dim not in unsized]
        if not sized:
            return Moved(None, (), labels, True)
        free = max(sized, key=lambda dim: _line(labels, dim).unique().numel())
        parts = tuple(dim for dim in varying if dim != free)
        sizes = [labels.shape[dim] for dim in (*parts, free)]
        places, labels = (each.movedim(free, -1).reshape(sizes) for each in (places, labels))
        is_ordered = len(sized) == len(varying) and _in_order(places, source.shape[-1])
        return Moved(free, parts, labels, is_ordered)


def _in_order(places: Tensor, size: int) -> bool:
    """Whether lines of places run through parts of some size and leave none early; places: int64[..., n]."""
    before, after = places[..., :-1], places[..., 1:]
    step = after - before
    inside = (before // size == after // size) & ((step == 0) | (step == 1))
    between = (before % size == size - 1) & (after % size == 0)
    return bool((inside | between).all())


def _line(labels: Tensor, dim: int) -> Tensor:
    return labels.movedim(dim, -1).reshape(-1, labels.shape[dim])[0]

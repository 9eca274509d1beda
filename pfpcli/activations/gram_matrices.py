"""Gram matrices: X'X of what a layer reads in the original, and the refit of a layer that loses channels.

A layer that reads fewer rows than it has columns keeps the rows instead, which are smaller.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import memory, processes
from pfpcli.activations.centred import Centred
from pfpcli.activations.kept_halves import Halves, KeptHalves
from pfpcli.activations.nested_fits import NestedFits
from pfpcli.activations.normal_equations import Sums
from pfpcli.activations.ridge import best_ridge
from pfpcli.activations.row_fits import RowFits, StoredRows
from pfpcli.activations.row_products import draw_patches
from pfpcli.activations.task import Fitting, Task
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import Reader, seats

#: Each image gives as many rows as make up `ROWS` rows for each column, where there are `IMAGES` images.
ROWS, IMAGES = 16, 128
#: A layer with more columns has no Gram matrix: it would not fit into memory.
WIDEST = 8192
#: The most bytes of the Gram matrices that are added up at a time.
HELD = 1 << 28
#: The choices of lambda of a refit, relative to the mean square of the columns.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Gram:
    """What a layer reads: the Gram matrix, or the rows, of every second image, and those of the others.

    Attributes:
        reader: the layer; it has weights.
        tensor: its weights.
        matrix: float64[G, O, J, R], its weights as in `Columns.weight`.
        halves: X'X, or X, of the images with an even and with an odd index. They have no targets, because Y = X W with
            the weights W of the layer.
    """

    reader: Reader
    tensor: Tensor
    matrix: Tensor
    halves: Halves

    @property
    def centred(self) -> Centred:
        """X'X of all images."""
        first, second = (_centred(half) for half in self.halves)
        return first.joined(second)

    def refits(self, alive: Sequence[Tensor]) -> list[Refit]:
        """Fit the layer's outputs in the original by least squares, with the kept channels alone, at several widths.

        One lambda serves all widths, because it depends on the images far more than on the width: a fit to one half of
        the images predicts the other half best with it, at the middle width. The error of a width is that of a fit to
        one half, measured on the other half.

        Args:
            alive: bool[labels] each, the labels that stay; each holds all those of the next one.
        """
        _, _, inputs, kernel = self.matrix.shape
        fits = self._fits(alive)
        ridge = self._ridge(fits)
        fitted = [fit.fitted(ridge) for fit in fits]
        errors = self._relative(fits, [each for each, _ in fitted])
        found = []
        for error, each in zip(errors, torch.stack([solved for _, solved in fitted], 1), strict=True):
            values = each[:, :-1].unflatten(1, (inputs, kernel)).permute(0, 3, 1, 2)
            weight = self.reader.into_weight(values, self.tensor.double()).to(self.tensor)
            found.append(Refit(weight, each[:, -1].flatten().to(self.tensor), float(error)))
        return found

    def errors(self, orders: Sequence[Sequence[Tensor]]) -> NDArray[np.float64]:
        """Return the errors of `refits` alone, for several orders of the labels: float64[orders, w].

        The lambda is chosen with the first order and serves all: what it depends on is the images.

        Args:
            orders: bool[labels] each, for each order the labels that stay at each width, as in `refits`.
        """
        found, ridge = [], None
        for i, alive in enumerate(orders):
            fits = self._fits(alive)
            ridge = ridge if i else self._ridge(fits)
            found.append(self._relative(fits, [fit.errors(ridge) for fit in fits]))
        return np.stack(found)

    def _fits(self, alive: Sequence[Tensor]) -> list[Fits]:
        """Return the fits of each group of the layer."""
        weights, kept = self.matrix.permute(0, 2, 3, 1).flatten(1, 2), [self._kept(each) for each in alive]
        return [
            _fits(self.halves, weight, torch.stack([each[i] for each in kept]), i) for i, weight in enumerate(weights)
        ]

    def _ridge(self, fits: list[Fits]) -> float | None:
        """Return the lambda of some fits."""
        if not self._has_halves:
            return best_ridge(RIDGES, None)
        judges = [fit.judge(len(fit.counts) // 2) for fit in fits]
        return best_ridge(RIDGES, lambda ridge: sum(judge(ridge) for judge in judges))

    def _relative(self, fits: list[Fits], errors: Sequence[Sequence[float]]) -> NDArray[np.float64]:
        """Return the squared errors of all groups relative to the variance of the outputs: float64[w]."""
        summed, spread = np.sum(errors, axis=0), sum(fit.energy for fit in fits)
        return summed / spread if self._has_halves and spread > 0 else np.zeros(len(summed))

    @property
    def _has_halves(self) -> bool:
        return not any(half.is_empty for half in self.halves)

    def _kept(self, alive: Tensor) -> Tensor:
        """Return which columns belong to kept channels: bool[G, K]; alive: bool[labels]."""
        groups, _, inputs, kernel = self.matrix.shape
        there = alive[self.reader.contraction.labels].view(groups, inputs, 1)
        return there.expand(-1, -1, kernel).flatten(1).to(self.matrix.device)


#: The fits of one group of a layer at several widths.
Fits = NestedFits | RowFits


def _fits(halves: Halves, weight: Tensor, kept: Tensor, group: int) -> Fits:
    """Return the fits of one group of a layer, see `NestedFits.of`."""
    first, second = halves
    if isinstance(first, StoredRows) and isinstance(second, StoredRows):
        return RowFits.of((first, second), weight, kept, group)
    return NestedFits.of((_centred(first), _centred(second)), weight, kept, group)


def _centred(half: Centred | StoredRows) -> Centred:
    return half.centred if isinstance(half, StoredRows) else half


@dataclass
class _Half:
    """What a layer reads of every second image: its rows, and X'X once there are more rows than half of the columns.

    Attributes:
        groups, columns: G and K of the layer.
        rows: float32[G, M, K + 1] each, the rows of this process, if there is no X'X.
        sums: X'X; None as long as the rows are few.
    """

    groups: int
    columns: int
    rows: list[Tensor] = field(default_factory=list, repr=False)
    sums: Sums | None = None

    def add(self, rows: Tensor) -> None:
        """Add rows: float32[G, M, K + 1]."""
        if self.sums is None:
            self.rows.append(rows)
            if self._count > self.columns // 2:
                self._sum()
        else:
            self.sums.add(rows, rows[..., :0])

    def is_few(self) -> bool:
        """Whether the rows of all processes are few."""
        summed, count = processes.largest(int(self.sums is not None)), processes.total(self._count)
        return not summed and count <= self.columns // 2

    def stored(self, device: torch.device) -> StoredRows:
        """Return the rows of all processes, if they are few."""
        return StoredRows(torch.cat(self.rows or [self._none(device)], 1)).of_all()

    def centred(self, device: torch.device) -> Centred:
        """Return X'X of the rows of all processes; the rows of this one are forgotten."""
        if self.sums is None:
            self.rows = self.rows or [self._none(device)]
            self._sum()
        assert self.sums is not None
        found = Centred.of(self.sums.finished().of_all())
        self.sums = None
        return found

    @property
    def _count(self) -> int:
        return sum(each.shape[1] for each in self.rows)

    def _none(self, device: torch.device) -> Tensor:
        return torch.zeros(self.groups, 0, self.columns + 1, device=device)

    def _sum(self) -> None:
        self.sums = Sums.empty(self.groups, self.columns, 0, self.rows[0].device)
        while self.rows:
            rows = self.rows.pop()
            self.sums.add(rows, rows[..., :0])


@dataclass
class _Seen:
    """What a layer reads for the images so far.

    Attributes:
        reader: the layer.
        patches: int64[p], the positions of each image that give a row; the same for every image, so that the order of
            the images does not matter.
        halves: the rows of the images with an even and with an odd index.
        images: the number of images so far.
    """

    reader: Reader
    patches: Tensor
    halves: tuple[_Half, _Half]
    images: int = 0

    @classmethod
    def of(cls, matrix: Tensor, reader: Reader) -> _Seen:
        """Return it for no images; matrix: float64[G, O, J, R], the weights of the layer."""
        groups, _, inputs, kernel = matrix.shape
        columns, random = inputs * kernel, torch.Generator().manual_seed(0)
        patches = draw_patches(reader.patches, _rows_per_image(reader, columns), random)
        return cls(reader, patches, (_Half(groups, columns), _Half(groups, columns)))

    def add(self, x: Tensor) -> None:
        """Add the inputs of the layer for some images."""
        for i, half in enumerate(self.halves):
            some = x[(i + self.images) % 2 :: 2]
            if len(some):
                half.add(self.reader.rows(some, self.patches))
        self.images += len(x)

    def finished(self, device: torch.device) -> Halves:
        """Return what the layer reads of all images of all processes."""
        first, second = self.halves
        few = [half.is_few() for half in self.halves]  # every process has to ask for both
        if all(few):
            return first.stored(device), second.stored(device)
        return first.centred(device), second.centred(device)


class Refit(NamedTuple):
    """A layer refitted to some of its channels.

    Attributes:
        weight: its weights, in their own shape, 0 for dropped channels.
        bias: float[C_out], a correction that is added to its outputs.
        error: squared error of its outputs relative to their variance, 0 to about 1.
    """

    weight: Tensor
    bias: Tensor
    error: float


def gram_batches(task: Task, groups: list[Group]) -> Iterator[list[tuple[Group, list[Gram]]]]:
    """Yield the groups with the Gram matrices of the layers that read them, as many groups at a time as fit in memory.

    Each batch of groups takes one pass over the images. Layers for which `has_gram` is False are left out.

    Args:
        task: the network and its images.
        groups: the groups.
    """
    return _batches(task, groups, None, KeptHalves(), keep=False)


def fitted_gram_batches(
    task: Task, groups: list[Group], *, keep: bool = False
) -> Iterator[list[tuple[Group, list[Gram]]]]:
    """Yield what `gram_batches` yields, of the fitting images; what is kept of a layer is not measured again.

    Args:
        task: the network and its images.
        groups: the groups.
        keep: whether to keep what is measured.
    """
    fitting = task.fitting or Fitting(task.batches)
    return _batches(replace(task, batches=fitting.batches), groups, fitting.most, fitting.kept, keep=keep)


def _batches(
    task: Task, groups: list[Group], images: int | None, kept: KeptHalves, *, keep: bool
) -> Iterator[list[tuple[Group, list[Gram]]]]:
    batch: list[tuple[Group, list[Reader]]] = []
    held: set[Reader] = set()
    for group in groups:
        found = [r for r in task.readers if has_gram(r) and _reads(r, group, task)]
        if batch and sum(_bytes(reader, images) for reader in held.union(found)) > HELD:
            yield _measured(task, batch, images, kept, keep=keep)
            batch, held = [], set()
        batch.append((group, found))
        held.update(found)
    if batch:
        yield _measured(task, batch, images, kept, keep=keep)


def has_gram(reader: Reader) -> bool:
    """Whether a layer has a Gram matrix: it has weights and is not too wide."""
    return reader.has_weights and _width(reader) <= WIDEST


def _reads(reader: Reader, group: Group, task: Task) -> bool:
    """Whether a layer reads channels of a group, or of its heads."""
    return bool((seats(reader, group, len(task.groups.root)) < len(group.units)).any())


def _bytes(reader: Reader, images: int | None) -> int:
    """Return the bytes that a layer takes while what it reads is added up, at most: X'X of both halves in float64."""
    columns = len(reader.units) * reader.kernel
    size = 16 * _width(reader) * columns
    if images is None:
        return size
    rows = images * min(reader.patches, _rows_per_image(reader, _width(reader)))
    return min(size, 4 * rows * columns) if rows <= _width(reader) else size


def _rows_per_image(reader: Reader, columns: int) -> int:
    """Return how many rows an image gives at most."""
    return -(-ROWS * columns // IMAGES)


def _width(reader: Reader) -> int:
    """Return K, the columns in each group of the layer's convolution."""
    return len(reader.units) * reader.kernel * reader.outputs * reader.patches // max(1, reader.neurons)


def _measured(
    task: Task, batch: list[tuple[Group, list[Reader]]], images: int | None, kept: KeptHalves, *, keep: bool
) -> list[tuple[Group, list[Gram]]]:
    """Return the Gram matrices of the layers that read some groups; one pass over the images measures the unknown."""
    readers = dict.fromkeys(reader for _, found in batch for reader in found)
    tensors = {reader: task.groups.labelled.graph.tensor(reader.weight).detach() for reader in readers}
    matrices = {reader: reader.matrix(tensor.double()) for reader, tensor in tensors.items()}
    halves = {reader: half for reader in readers if (half := kept.get(reader)) is not None}
    seen = {reader: _Seen.of(matrices[reader], reader) for reader in readers if reader not in halves}
    if seen:
        task.walk(lambda reader, x, _: seen[reader].add(x), seen, images)
    for reader in [*seen]:  # what is summed is freed
        halves[reader] = seen.pop(reader).finished(task.device)
        if keep:
            kept.put(reader, halves[reader])
    memory.give_back()  # the fits take memory of other sizes than the walk
    grams = {reader: Gram(reader, tensors[reader], matrices[reader], halves[reader]) for reader in readers}
    return [(group, [grams[reader] for reader in found]) for group, found in batch]

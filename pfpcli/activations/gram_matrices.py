"""Gram matrices: X'X of what a layer reads in the original, and the refit of a layer that loses channels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.activations.nested_fits import NestedFits
from pfpcli.activations.normal_equations import Normal, Sums
from pfpcli.activations.ridge import best_ridge
from pfpcli.activations.row_products import draw_patches
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import Reader, seats

#: Each image gives as many rows as make up `ROWS` rows for each column, where there are `IMAGES` images.
ROWS, IMAGES = 16, 128
#: A layer with more columns has no Gram matrix: it would not fit into memory.
WIDEST = 8192
#: The most bytes of the Gram matrices that are in memory at a time.
HELD = 1 << 28
#: The choices of lambda of a refit, relative to the mean square of the columns.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Gram:
    """The Gram matrices of what a layer reads: one of every second image, one of the others.

    Attributes:
        reader: the layer; it has weights.
        tensor: its weights.
        matrix: float64[G, O, J, R], its weights as in `Columns.weight`.
        halves: X'X of the images with an even and with an odd index. They have no targets, because Y = X W with the
            weights W of the layer.
    """

    reader: Reader
    tensor: Tensor
    matrix: Tensor
    halves: tuple[Normal, Normal]

    @property
    def normal(self) -> Normal:
        """X'X of all images."""
        return self.halves[0] + self.halves[1]

    def refits(self, alive: Sequence[Tensor]) -> list[Refit]:
        """Fit the layer's outputs in the original by least squares, with the kept channels alone, at several widths.

        One lambda serves all widths, because it depends on the images far more than on the width: a fit to one half of
        the images predicts the other half best with it, at the middle width. The error of a width is that of a fit to
        one half, measured on the other half.

        Args:
            alive: bool[labels] each, the labels that stay; each holds all those of the next one.
        """
        _, _, inputs, kernel = self.matrix.shape
        fits, ridge = self._fits(alive)
        solved = torch.stack([fit.solutions(ridge) for fit in fits], 1)
        found = []
        for error, each in zip(self._errors(fits, ridge), solved, strict=True):
            values = each[:, :-1].unflatten(1, (inputs, kernel)).permute(0, 3, 1, 2)
            weight = self.reader.into_weight(values, self.tensor.double()).to(self.tensor)
            found.append(Refit(weight, each[:, -1].flatten().to(self.tensor), float(error)))
        return found

    def errors(self, alive: Sequence[Tensor]) -> NDArray[np.float64]:
        """Return the errors of `refits` alone: float64[w]."""
        return self._errors(*self._fits(alive))

    def _fits(self, alive: Sequence[Tensor]) -> tuple[list[NestedFits], float | None]:
        """Return the fits of each group of the layer, and the lambda."""
        weights, kept = self.matrix.permute(0, 2, 3, 1).flatten(1, 2), [self._kept(each) for each in alive]
        fits = [
            NestedFits.of(self.halves, weight, torch.stack([each[i] for each in kept]), i)
            for i, weight in enumerate(weights)
        ]
        middle = slice(len(alive) // 2, len(alive) // 2 + 1)

        def error(ridge: float | None) -> float:
            return sum(fit.errors(ridge, middle)[0] for fit in fits)

        return fits, best_ridge(RIDGES, error if self._has_halves else None)

    def _errors(self, fits: list[NestedFits], ridge: float | None) -> NDArray[np.float64]:
        """Return the squared errors on the second half, relative to the variance of the outputs: float64[w]."""
        errors = np.sum([fit.errors(ridge) for fit in fits], axis=0)
        spread = sum(fit.second.energy for fit in fits)
        return errors / spread if self._has_halves and spread > 0 else np.zeros(len(errors))

    @property
    def _has_halves(self) -> bool:
        return not any(half.is_empty for half in self.halves)

    def _kept(self, alive: Tensor) -> Tensor:
        """Return which columns belong to kept channels: bool[G, K]; alive: bool[labels]."""
        groups, _, inputs, kernel = self.matrix.shape
        there = alive[self.reader.contraction.labels].view(groups, inputs, 1)
        return there.expand(-1, -1, kernel).flatten(1).to(self.matrix.device)


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
    halves: tuple[Sums, Sums]
    images: int = 0

    @classmethod
    def of(cls, matrix: Tensor, reader: Reader) -> _Seen:
        """Return it for no images; matrix: float64[G, O, J, R], the weights of the layer."""
        groups, _, inputs, kernel = matrix.shape
        columns, random = inputs * kernel, torch.Generator().manual_seed(0)
        patches = draw_patches(reader.patches, -(-ROWS * columns // IMAGES), random)
        first, second = (Sums.empty(groups, columns, 0, matrix.device) for _ in range(2))
        return cls(reader, patches, (first, second))

    def add(self, x: Tensor) -> None:
        """Add the inputs of the layer for some images."""
        for i, half in enumerate(self.halves):
            some = x[(i + self.images) % 2 :: 2]
            if len(some):
                rows = self.reader.rows(some, self.patches)
                half.add(rows, rows[..., :0])
        self.images += len(x)


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


def gram_batches(
    task: Task, groups: list[Group], images: int | None = None
) -> Iterator[list[tuple[Group, list[Gram]]]]:
    """Yield the groups with the Gram matrices of the layers that read them, as many groups at a time as fit in memory.

    Each batch of groups takes one pass over the images. Layers for which `has_gram` is False are left out.

    Args:
        task: the network and its images.
        groups: the groups.
        images: the largest number of images; None for all.
    """
    batch: list[tuple[Group, list[Reader]]] = []
    held: set[Reader] = set()
    for group in groups:
        found = [r for r in task.readers if has_gram(r) and _reads(r, group, task)]
        if batch and sum(map(_bytes, held.union(found))) > HELD:
            yield _measured(task, batch, images)
            batch, held = [], set()
        batch.append((group, found))
        held.update(found)
    if batch:
        yield _measured(task, batch, images)


def has_gram(reader: Reader) -> bool:
    """Whether a layer has a Gram matrix: it has weights and is not too wide."""
    return reader.has_weights and _width(reader) <= WIDEST


def _reads(reader: Reader, group: Group, task: Task) -> bool:
    """Whether a layer reads channels of a group, or of its heads."""
    return bool((seats(reader, group, len(task.groups.root)) < len(group.units)).any())


def _bytes(reader: Reader) -> int:
    """Return the size of the layer's Gram matrix."""
    return 16 * _width(reader) * len(reader.units) * reader.kernel


def _width(reader: Reader) -> int:
    """Return K, the columns in each group of the layer's convolution."""
    return len(reader.units) * reader.kernel * reader.outputs * reader.patches // max(1, reader.neurons)


def _measured(
    task: Task, batch: list[tuple[Group, list[Reader]]], images: int | None
) -> list[tuple[Group, list[Gram]]]:
    """Measure the Gram matrices of the layers that read some groups, in one pass over the images."""
    readers = {id(reader): reader for _, found in batch for reader in found}
    tensors = {key: task.groups.labelled.graph.tensor(reader.weight).detach() for key, reader in readers.items()}
    matrices = {key: reader.matrix(tensors[key].double()) for key, reader in readers.items()}
    seen = {key: _Seen.of(matrices[key], reader) for key, reader in readers.items()}
    if seen:
        task.walk(lambda reader, x, _: seen[id(reader)].add(x), readers.values(), images)
    grams = {}
    for key, reader in readers.items():
        first, second = (sums.finished().of_all() for sums in seen.pop(key).halves)
        grams[key] = Gram(reader, tensors[key], matrices[key], (first, second))
    return [(group, [grams[id(reader)] for reader in found]) for group, found in batch]

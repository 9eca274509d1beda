"""Gram matrices: X'X of what a layer reads in the original, and the refit of a layer that loses channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pfpcli.activations.least_squares import Normal, draw_patches, summed_product
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import Reader, seats

#: Each image gives as many rows as make up `ROWS` rows for each column, where there are `IMAGES` images.
ROWS, IMAGES = 16, 128
#: A layer with more columns has no Gram matrix: it would not fit into memory.
WIDEST = 8192
#: The most bytes of the Gram matrices that are in memory at a time.
HELD = 1 << 29
#: The choices of lambda of a refit, relative to the mean square of the columns.
RIDGES = (1e-3, 1e-2, 1e-1, 1.0)


@dataclass
class Gram:
    """The Gram matrices of what a layer reads: one of every second image, one of the others.

    Attributes:
        reader: the layer; it has weights.
        tensor: its weights.
        matrix: float64[G, O, J, R], its weights as in `Columns.weight`.
        halves: X'X of the images with an even and with an odd index; their X'Y is unused, because Y = X W with the
            weights W of the layer.
        images: the number of images so far.
    """

    reader: Reader
    tensor: Tensor
    matrix: Tensor
    halves: tuple[Normal, Normal]
    images: int = 0

    @classmethod
    def of(cls, reader: Reader, task: Task) -> Gram:
        """Return the Gram matrices of no rows."""
        tensor = task.groups.labelled.graph.tensor(reader.weight).detach()
        matrix = reader.matrix(tensor.double())
        groups, outputs, inputs, kernel = matrix.shape
        first, second = (Normal.empty(groups, inputs * kernel, outputs, tensor.device) for _ in range(2))
        return cls(reader, tensor, matrix, (first, second))

    def add(self, x: Tensor, weight: Tensor) -> None:
        """Add the inputs of the layer for some images; arguments as for `walk.Look`."""
        # the same positions of every image, so that the order of the images does not matter
        random, columns = torch.Generator().manual_seed(0), self.matrix.shape[2:].numel()
        patches = draw_patches(self.reader.patches, -(-ROWS * columns // IMAGES), random)
        for i, half in enumerate(self.halves):
            some = x[(i + self.images) % 2 :: 2]
            if len(some):
                rows = self.reader.rows(some, patches)
                half.gram += summed_product(rows, rows)
        self.images += len(x)

    @property
    def normal(self) -> Normal:
        """X'X of all images."""
        return self.halves[0] + self.halves[1]

    def ridge(self, alive: Tensor) -> float | None:
        """Return the lambda with which a refit to one half predicts the other half best; None keeps the weights.

        Args:
            alive: bool[labels], the labels that stay.
        """
        choices: list[float | None] = [None, *RIDGES]
        first, second = self.halves
        if first.is_empty or second.is_empty:
            return None
        errors = [self._error(second, self._solved(first, alive, ridge)) for ridge in choices]
        return choices[errors.index(min(errors))]

    def refit(self, alive: Tensor, ridge: float | None) -> Refit:
        """Fit the layer's outputs in the original by least squares, with the kept channels alone.

        The error is that of a fit to one half of the images, measured on the other half.

        Args:
            alive: bool[labels], the labels that stay.
            ridge: lambda, relative to the mean square of the columns; None keeps the weights and fits the intercept.
        """
        _, _, inputs, kernel = self.matrix.shape
        solved = self._solved(self.normal, alive, ridge)
        values = solved[:, :-1].unflatten(1, (inputs, kernel)).permute(0, 3, 1, 2)
        weight = self.reader.into_weight(values, self.tensor.double()).to(self.tensor)
        first, second = self.halves
        left, there = self._error(second, self._solved(first, alive, ridge)), self._spread(second)
        return Refit(weight, solved[:, -1].flatten().to(self.tensor), left / there if there > 0 else 0.0)

    def _rows(self) -> Tensor:
        """Return the weights of the layer as float64[G, K, O], K = J * R columns."""
        return self.matrix.permute(0, 2, 3, 1).flatten(1, 2)

    def _error(self, normal: Normal, solved: Tensor) -> float:
        """Return the squared error of the layer's outputs on some rows, with the weights of a solution."""
        missing = solved - torch.cat([self._rows(), torch.zeros_like(solved[:, :1])], 1)
        return float((missing * (normal.gram @ missing)).sum())

    def _spread(self, normal: Normal) -> float:
        """Return the squared distance of the layer's outputs on some rows from their mean."""
        centred = normal.gram[:, :-1, :-1] - normal.count * normal.mean.mT @ normal.mean
        return float((self._rows() * (centred @ self._rows())).sum())

    def _solved(self, normal: Normal, alive: Tensor, ridge: float | None) -> Tensor:
        """Return weights refitted to some rows, float64[G, K + 1, O]: 0 for dropped columns, the intercept last."""
        whole = self._rows()
        found = whole.new_zeros(whole.shape[0], whole.shape[1] + 1, whole.shape[2])
        for i, stays in enumerate(self._kept(alive)):
            gram = normal.gram[i]
            left = torch.cat([stays, stays.new_ones(1)])
            cross = gram[left][:, :-1] @ whole[i]
            found[i][left] = Normal(gram[left][:, left][None], cross[None]).solve(whole[i][stays][None], ridge)[0]
        return found

    def _kept(self, alive: Tensor) -> Tensor:
        """Return which columns belong to kept channels: bool[G, K]; alive: bool[labels]."""
        groups, _, inputs, kernel = self.matrix.shape
        there = alive[self.reader.contraction.labels].view(groups, inputs, 1)
        return there.expand(-1, -1, kernel).flatten(1).to(self.matrix.device)


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
    """
    batch: list[tuple[Group, list[Reader]]] = []
    held: set[Reader] = set()
    for group in groups:
        found = [r for r in task.readers if has_gram(r) and _reads(r, group, task)]
        if batch and sum(map(_bytes, held.union(found))) > HELD:
            yield _measured(task, batch)
            batch, held = [], set()
        batch.append((group, found))
        held.update(found)
    if batch:
        yield _measured(task, batch)


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


def _measured(task: Task, batch: list[tuple[Group, list[Reader]]]) -> list[tuple[Group, list[Gram]]]:
    """Measure the Gram matrices of the layers that read some groups, in one pass over the images."""
    grams = {id(reader): Gram.of(reader, task) for _, found in batch for reader in found}
    if grams:
        task.walk(lambda reader, x, w: grams[id(reader)].add(x, w), [gram.reader for gram in grams.values()])
        for gram in grams.values():
            gram.halves = gram.halves[0].of_all(), gram.halves[1].of_all()
    return [(group, [grams[id(reader)] for reader in found]) for group, found in batch]

"""Grams: what layers read in the original network, as X'X, and what follows from it for a layer that loses channels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from pfpcli.activations.least_squares import Normal, rows
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import Reader, seats

#: Positions of a layer that are looked at: so many for each of its columns, if there are as many images as this.
ROWS, IMAGES = 16, 128
#: More columns than this are not solved for: X'X would not fit.
WIDEST = 8192
#: Bytes of X'X that are held at a time.
HELD = 1 << 29
#: Lambda of a refit, relative to the mean square of the columns.
RIDGE = 1e-3


@dataclass
class Gram:
    """What a layer with weights reads.

    Attributes:
        reader: the layer.
        tensor: its weights.
        matrix: float64[G, O, J, R], its weights as a matrix.
        normal: X'X; X'Y is what its weights make of it.
    """

    reader: Reader
    tensor: Tensor
    matrix: Tensor
    normal: Normal

    @classmethod
    def of(cls, reader: Reader, task: Task) -> Gram:
        """Nothing seen yet."""
        tensor = task.groups.labelled.graph.tensor(reader.weight).detach()
        matrix = reader.matrix(tensor.double())
        groups, outputs, inputs, kernel = matrix.shape
        normal = Normal.empty(groups, inputs * kernel, outputs, tensor.device)
        return cls(reader, tensor, matrix, normal)

    def look(self, x: Tensor, weight: Tensor) -> None:
        """See what the layer reads now."""
        for columns in self.reader.pieces(x, weight):
            # the same positions of every image, so that the order of images does not matter
            random = torch.Generator().manual_seed(0)
            read, _ = rows(columns, -(-ROWS * columns.x.shape[2:4].numel() // IMAGES), random)
            self.normal.gram += read.mT @ read

    def refit(self, alive: Tensor) -> Narrowed:
        """Least squares for what stays, on what the layer reads in the original network; alive: bool[labels]."""
        _, _, inputs, kernel = self.matrix.shape
        whole, solved = self._rows(), self._solved(alive)
        values = solved[:, :-1].unflatten(1, (inputs, kernel)).permute(0, 3, 1, 2)
        weight = self.reader.into_weight(values, self.tensor.double()).to(self.tensor)
        normal = self.normal
        gram = normal.gram[:, :-1, :-1] / normal.count - normal.mean.mT @ normal.mean
        left, there = ((each * (gram @ each)).sum() for each in (solved[:, :-1] - whole, whole))
        return Narrowed(weight, solved[:, -1].flatten().to(self.tensor), float(left / there) if there > 0 else 0.0)

    def _rows(self) -> Tensor:
        """float64[G, K, O]."""
        return self.matrix.permute(0, 2, 3, 1).flatten(1, 2)

    def _solved(self, alive: Tensor) -> Tensor:
        """float64[G, K + 1, O], 0 where it is gone, the intercept last."""
        whole = self._rows()
        found = whole.new_zeros(whole.shape[0], whole.shape[1] + 1, whole.shape[2])
        for i, stays in enumerate(self._stays(alive)):
            gram = self.normal.gram[i]
            left = torch.cat([stays, stays.new_ones(1)])
            cross = gram[left][:, :-1] @ whole[i]
            found[i][left] = Normal(gram[left][:, left][None], cross[None]).solve(whole[i][stays][None], RIDGE)[0]
        return found

    def _stays(self, alive: Tensor) -> Tensor:
        """bool[G, K]: the columns whose channels are alive; alive: bool[labels]."""
        groups, _, inputs, kernel = self.matrix.shape
        there = alive[self.reader.contraction.labels].view(groups, inputs, 1)
        return there.expand(-1, -1, kernel).flatten(1).to(self.matrix.device)


class Narrowed(NamedTuple):
    """A layer that does without some of its channels.

    Attributes:
        weight: its weights, 0 for what is gone, in their own shape.
        added: float[C_out], what is added to its outputs.
        error: what is left of its squared outputs about their mean, 0 to about 1.
    """

    weight: Tensor
    added: Tensor
    error: float


def reads(reader: Reader, group: Group, task: Task) -> bool:
    """Whether a layer reads channels of a group, or heads of it."""
    return bool((seats(reader, group, len(task.groups.root)) < len(group.units)).any())


def bundles(task: Task, groups: list[Group]) -> Iterator[list[tuple[Group, list[Gram]]]]:
    """Groups with what the layers that read them read, as many at a time as can be held.

    Each bundle takes one pass over the images. A layer that is too wide, and a product of activations, has no Gram.
    """
    bundle: list[tuple[Group, list[Reader]]] = []
    held: set[Reader] = set()
    for group in groups:
        found = [r for r in task.readers if is_solved(r) and reads(r, group, task)]
        if bundle and sum(map(_bytes, held.union(found))) > HELD:
            yield _looked(task, bundle)
            bundle, held = [], set()
        bundle.append((group, found))
        held.update(found)
    if bundle:
        yield _looked(task, bundle)


def is_solved(reader: Reader) -> bool:
    """Whether a layer has a Gram."""
    return reader.has_weights and _width(reader) <= WIDEST


def _bytes(reader: Reader) -> int:
    return 8 * _width(reader) * len(reader.units) * reader.kernel


def _width(reader: Reader) -> int:
    """K, the columns in each of its groups."""
    return len(reader.units) * reader.kernel * reader.outputs * reader.patches // max(1, reader.neurons)


def _looked(task: Task, bundle: list[tuple[Group, list[Reader]]]) -> list[tuple[Group, list[Gram]]]:
    grams = {id(reader): Gram.of(reader, task) for _, found in bundle for reader in found}
    if grams:
        task.walk(lambda reader, x, w: grams[id(reader)].look(x, w), [gram.reader for gram in grams.values()])
        for gram in grams.values():
            gram.normal = gram.normal.of_all()
    return [(group, [grams[id(reader)] for reader in found]) for group, found in bundle]

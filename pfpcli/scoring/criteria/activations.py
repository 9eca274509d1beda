"""Criteria that look at what channels show while the calibration images go through the network."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.channels.labels import along
from pfpcli.channels.reading_layers import Reader, seats
from pfpcli.channels.rules import Columns
from pfpcli.scoring.scores import Scores

#: Outputs of a layer that ThiNet looks at, for every image.
SAMPLED = 32
#: Outputs that are this small together are none.
_TINY = 1e-30


def activation(task: Task) -> Scores:
    """Mean of |a| over images, positions and all layers that read the channel.

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017,
    section 2.2; absolute values, since not every activation function leaves positive ones only.
    """
    total, count = task.nothing(), np.zeros(len(task.groups.root))

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        labels = along(task.groups.labelled.axes[reader.x], reader.contraction.dim)
        if labels is not None:
            units = task.groups.root[labels.flatten().numpy()]
            sums = x.abs().sum_to_size(labels.shape).flatten().cpu().double().numpy()
            np.add.at(total, units, sums)
            np.add.at(count, units, x.numel() / len(units))

    task.walk(look)
    return Scores(processes.total(total) / np.maximum(processes.total(count), 1))


def weight_activation(task: Task) -> Scores:
    """The channel's activation times the weights that read it, summed over outputs and over layers.

        s_j = rms(a_j) * sum over i of |w_ij|,    |w_ij| the Euclidean norm over kernel positions

    In a product of activations the other operand is the weight, image by image.

    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models (Wanda), ICLR 2024, which
    scores single weights by |w_ij| * |a_j|; here for channels.
    """
    unit = task.nothing()
    squares = {id(reader): np.zeros(len(reader.units)) for reader in task.readers}
    counts = dict.fromkeys(squares, 0.0)

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        if reader.has_weights:
            squares[id(reader)] += _squares(reader, x)
            counts[id(reader)] += x.numel() / len(reader.units)
        else:
            for columns in reader.pieces(x, weight):
                read = columns.x.square().mean((0, 3, 4)).sqrt()
                squares[id(reader)] += _wide(reader, read * _norms(columns.weight))
            counts[id(reader)] += len(x)

    task.walk(look)
    graph = task.groups.labelled.graph
    for reader in task.readers:
        mean = processes.total(squares[id(reader)]) / max(processes.total(counts[id(reader)]), 1)
        if reader.has_weights:
            mean = np.sqrt(mean) * _wide(reader, _norms(reader.matrix(graph.tensor(reader.weight).detach().float())))
        np.add.at(unit, reader.units, mean)
    return Scores(unit)


def thinet(task: Task) -> Scores:
    """When a channel is removed, if those go first whose removal changes what is read the least.

    x_ij is what channel j adds to the sampled output i of the layers that read it: the sum of w a over the kernel
    positions. The set T to be removed grows by the channel that leaves

        sum over i of (sum over j in T of x_ij)^2

    smallest. Several layers that read a group count by the share of their outputs that goes. The sampled outputs are
    the same for every image, so their order does not matter.

    Source: Luo et al., ThiNet, ICCV 2017, section 3.2, algorithm 1. (The authors of PFP keep that set in their code;
    the paper removes it, and so does this.)
    """
    unit = task.nothing()
    seen = [Outputs.of(r, task, np.random.default_rng((task.seed, i))) for i, r in enumerate(task.readers)]
    walk_outputs(task, seen)
    for i, group in enumerate(task.groups.prunable):
        grams = [one.grams[i] / max(one.energy, _TINY) for one in seen if i in one.grams]
        if grams:
            order = removal_order(np.sum(grams, axis=0))
            unit[group.units[order]] = (np.arange(len(order)) + 1) / len(order)
    return Scores(unit)


def removal_order(gram: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order in which ThiNet removes channels: int64[n].

    Args:
        gram: float64[n, n], sum over sampled outputs of x_ij x_ik.
    """
    # what channel k adds to the objective: x_k^2 and twice its product with what is in T already
    added = gram.diagonal().copy()
    order = []
    for _ in range(len(gram)):
        order.append(int(np.argmin(added)))
        added += 2 * gram[order[-1]]
        added[order] = np.inf
    return np.asarray(order)


@dataclass
class Outputs:
    """A reader, the outputs of it that are looked at, and what they are made of so far.

    Attributes:
        output, position: int64[K], which of its O outputs, at which of its P positions.
        places: of each group it reads, by its number: int64[C_in], where in the group the unit of a channel is.
        grams: of each group: float64[n, n], sum over sampled outputs of the products of what units add to them.
        energy: sum of the squares of the sampled outputs.
    """

    reader: Reader
    output: Tensor
    position: Tensor
    places: dict[int, Tensor]
    grams: dict[int, NDArray[np.float64]] = field(repr=False)
    energy: float = 0.0

    @classmethod
    def of(cls, reader: Reader, task: Task, rng: np.random.Generator) -> Outputs:
        """Nothing seen yet; rng chooses the outputs."""
        count = reader.outputs * reader.patches
        sampled = rng.choice(count, min(SAMPLED, count), replace=False)
        places, grams = {}, {}
        for i, group in enumerate(task.groups.prunable):
            at = seats(reader, group, len(task.groups.root))
            if (at < len(group.units)).any():
                places[i] = torch.from_numpy(at).to(task.device)
                grams[i] = np.zeros((len(group.units), len(group.units)))
        output, position = (torch.from_numpy(each).to(task.device) for each in divmod(sampled, reader.patches))
        return cls(reader, output, position, places, grams)

    def look(self, x: Tensor, weight: Tensor) -> None:
        """See what the reader reads now."""
        for columns in self.reader.pieces(x, weight) if self.places else ():
            self._add(columns)

    def _add(self, columns: Columns) -> None:
        x, weight = columns.x[..., self.position], columns.weight[:, self.output]
        terms = torch.einsum("ngjrk,gkjr->ngkj", x, weight)
        self.energy += float(terms.sum(3).square().sum())
        # a group of a convolution has outputs of its own; of a product of activations there is a stack for each image
        parts = len(self.reader.units) // terms.shape[3]
        terms = terms.reshape(-1, parts, *terms.shape[2:]).transpose(0, 1).flatten(1, 2)
        for i, gram in self.grams.items():
            for part, places in zip(terms, self.places[i].view(parts, -1), strict=True):
                gathered = part.new_zeros(len(part), len(gram) + 1).index_add_(1, places, part)[:, :-1]
                gram += (gathered.T @ gathered).cpu().double().numpy()


def walk_outputs(task: Task, seen: list[Outputs]) -> None:
    """Show the outputs of some readers all images."""
    by_reader = {id(one.reader): one for one in seen}
    task.walk(lambda reader, x, weight: by_reader[id(reader)].look(x, weight), [one.reader for one in seen])
    for one in seen:
        one.energy = processes.total(one.energy)
        one.grams = {i: processes.total(gram) for i, gram in one.grams.items()}


def _squares(reader: Reader, x: Tensor) -> NDArray[np.float64]:
    """float64[C_in], the sum of squares over images and positions."""
    others = [dim for dim in range(x.dim()) if dim != reader.contraction.dim]
    return x.float().square().sum(others).cpu().double().numpy()


def _norms(weight: Tensor) -> Tensor:
    """float[G, J], the sum over outputs of the norm over kernel positions; weight float[G, O, J, R]."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=3)
    return norms.sum(1)


def _wide(reader: Reader, values: Tensor) -> NDArray[np.float64]:
    """float64[C_in] of float[G, J]; a product of activations is a stack of one for each image, which are summed."""
    return values.reshape(-1, len(reader.units)).sum(0).cpu().double().numpy()

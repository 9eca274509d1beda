"""Criteria that look at the activations of channels on the scoring images."""

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
from pfpcli.scoring.criteria.one_walk import in_one_walk
from pfpcli.scoring.scores import Scores

#: The number of outputs of a layer that ThiNet samples.
SAMPLED = 32
#: Sums of squares are divided by at least this much.
_TINY = 1e-30


def activation(task: Task) -> Scores:
    """Score by the mean of |a| over images, positions and all layers that read the channel.

    Source: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017,
    section 2.2; here with absolute values, because activations can be negative.
    """
    total, count = task.zero_scores(), np.zeros(len(task.groups.root))

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
    """Score by the activation of a channel times the weights that read it, summed over outputs and over layers.

        s_j = rms(a_j) * sum over i of |w_ij|,    |w_ij| the Euclidean norm over kernel positions

    The weights of a product of activations are its other operand, separately for each image.

    Source: Sun et al., A Simple and Effective Pruning Approach for Large Language Models (Wanda), ICLR 2024, which
    scores single weights by |w_ij| * |a_j|; here for channels.
    """
    [found] = in_one_walk(task, WeightActivation(task))
    return found


class WeightActivation:
    """The criterion `weight_activation`, as `one_walk.Looking`.

    Args:
        task: the network and its scoring images.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._squares = {id(reader): np.zeros(len(reader.units)) for reader in task.readers}
        self._counts = dict.fromkeys(self._squares, 0.0)

    def look(self, reader: Reader, x: Tensor, weight: Tensor) -> None:
        """Add what a layer reads of some images."""
        if reader.has_weights:
            self._squares[id(reader)] += _squares(reader, x)
            self._counts[id(reader)] += x.numel() / len(reader.units)
        else:
            for columns in reader.pieces(x, weight, whole=True):
                read = columns.x.square().mean((0, 3, 4)).sqrt()
                self._squares[id(reader)] += _by_channel(reader, read * _norms(columns.weight))
            self._counts[id(reader)] += len(x)

    def scores(self) -> Scores:
        """Return the scores."""
        unit, graph = self._task.zero_scores(), self._task.groups.labelled.graph
        for reader in self._task.readers:
            count = processes.total(self._counts[id(reader)])
            mean = processes.total(self._squares[id(reader)]) / max(count, 1)
            if reader.has_weights:
                weight = graph.tensor(reader.weight).detach().float()
                mean = np.sqrt(mean) * _by_channel(reader, _norms(reader.matrix(weight)))
            np.add.at(unit, reader.units, mean)
        return Scores(unit)


def thinet(task: Task) -> Scores:
    """Score by the rank in which a greedy algorithm removes the channels: it changes the reading layers the least.

    x_ij is the term of channel j in the sampled output i of the layers that read it: the sum of w a over the kernel
    positions. The algorithm adds one channel after the other to the removed set T, each time the channel for which

        sum over i of (sum over j in T of x_ij)^2

    is smallest. If several layers read a group, this sum is divided by the sum of squares of each layer's outputs. The
    sampled outputs are the same for every image, so that the order of the images does not matter.

    Source: Luo et al., ThiNet, ICCV 2017, section 3.2, algorithm 1. The paper removes the set T, and so does this; the
    code of the authors of PFP keeps it.
    """
    unit = task.zero_scores()
    seen = [SampledOutputs.of(r, task, np.random.default_rng((task.seed, i))) for i, r in enumerate(task.readers)]
    measure_outputs(task, seen)
    for i, group in enumerate(task.groups.prunable):
        grams = [one.grams[i] / max(one.energy, _TINY) for one in seen if i in one.grams]
        if grams:
            order = removal_order(np.sum(grams, axis=0))
            unit[group.units[order]] = (np.arange(len(order)) + 1) / len(order)
    return Scores(unit)


def removal_order(gram: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the order in which ThiNet removes channels: int64[n].

    Args:
        gram: float64[n, n], sum over sampled outputs of x_ij x_ik.
    """
    # channel k adds x_k^2 to the objective, and twice its products with the channels in T
    added = gram.diagonal().copy()
    order = []
    for _ in range(len(gram)):
        order.append(int(np.argmin(added)))
        added += 2 * gram[order[-1]]
        added[order] = np.inf
    return np.asarray(order)


@dataclass
class SampledOutputs:
    """A sample of the outputs of a layer, and the products of the terms that channels have in them.

    Attributes:
        reader: the layer.
        output, position: int64[K], for each sampled output which of the O outputs it is, at which of the P patches.
        places: number of a group -> int64[C_in], the index in the group of the unit of each channel; only groups that
            the layer reads.
        grams: number of a group -> float64[n, n], the products of the terms of units, summed over sampled outputs.
        energy: sum of the squares of the sampled outputs.
    """

    reader: Reader
    output: Tensor
    position: Tensor
    places: dict[int, Tensor]
    grams: dict[int, NDArray[np.float64]] = field(repr=False)
    energy: float = 0.0

    @classmethod
    def of(cls, reader: Reader, task: Task, rng: np.random.Generator) -> SampledOutputs:
        """Draw the outputs with rng; no images are added yet."""
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

    def add(self, x: Tensor, weight: Tensor) -> None:
        """Add the inputs of the layer for some images; arguments as for `walk.Look`."""
        if self.places:
            columns = self.reader.columns(x, weight, self.position)
            self._add_columns(columns.x.float(), columns.weight[:, self.output].float())

    def _add_columns(self, x: Tensor, weight: Tensor) -> None:
        """Add the inputs of the sampled outputs; x: float[N, G, J, R, K], weight: float[G, K, J, R]."""
        terms = torch.einsum("ngjrk,gkjr->ngkj", x, weight)
        self.energy += float(terms.sum(3).square().sum())
        # each group of a convolution has its own outputs; a product of activations has a stack of them for each image
        parts = len(self.reader.units) // terms.shape[3]
        terms = terms.reshape(-1, parts, *terms.shape[2:]).transpose(0, 1).flatten(1, 2)
        for i, gram in self.grams.items():
            for part, places in zip(terms, self.places[i].view(parts, -1), strict=True):
                gathered = part.new_zeros(len(part), len(gram) + 1).index_add_(1, places, part)[:, :-1]
                gram += (gathered.T @ gathered).cpu().double().numpy()


def measure_outputs(task: Task, seen: list[SampledOutputs]) -> None:
    """Add all images to the sampled outputs of some layers, which change in place."""
    by_reader = {id(one.reader): one for one in seen}
    task.walk(lambda reader, x, weight: by_reader[id(reader)].add(x, weight), [one.reader for one in seen])
    for one in seen:
        one.energy = processes.total(one.energy)
        one.grams = {i: processes.total(gram) for i, gram in one.grams.items()}


def _squares(reader: Reader, x: Tensor) -> NDArray[np.float64]:
    """Return the sum of squares over images and positions: float64[C_in]."""
    others = [dim for dim in range(x.dim()) if dim != reader.contraction.dim]
    return x.float().square().sum(others).cpu().double().numpy()


def _norms(weight: Tensor) -> Tensor:
    """Return the sum over outputs of the norm over kernel positions, float[G, J]; weight: float[G, O, J, R]."""
    norms: Tensor = torch.linalg.vector_norm(weight, dim=3)
    return norms.sum(1)


def _by_channel(reader: Reader, values: Tensor) -> NDArray[np.float64]:
    """Return float[G, J] as float64[C_in]; a product of activations has a G for each image, and these are summed."""
    return values.reshape(-1, len(reader.units)).sum(0).cpu().double().numpy()

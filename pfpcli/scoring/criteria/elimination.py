"""Elimination: channels are dropped one by one, each time the one that the layers that read it can compensate best.

A layer reads columns x and puts out W x. When the columns u are dropped and W is refitted to the kept columns, the
squared error of the layer grows by

    tr(W_u' (H_uu)^-1 W_u),    H = (X'X)^-1

where W is refitted to all columns dropped before. W and H are then updated without a new fit: H becomes the inverse of
X'X without the rows and columns u. The error of an output is weighted with its effect on the loss of the network
(`gradients.output_sensitivity`).

Source: Hassibi and Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NIPS 1992, here for
blocks of columns, and with the loss of each layer instead of the network's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.activations.gram_matrices import Gram, gram_batches, has_gram
from pfpcli.activations.ridge import damped
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import seats
from pfpcli.scoring.criteria.activations import SampledOutputs, measure_outputs
from pfpcli.scoring.criteria.gradients import output_sensitivity
from pfpcli.scoring.scores import Scores

#: Of n units that are left, n / TOGETHER are dropped at a time, and at least one.
TOGETHER = 32
#: Lambda, relative to the mean square of the columns.
RIDGE = 1e-3
#: Sums of squares are divided by at least this much.
_TINY = 1e-30


def obs(task: Task) -> Scores:
    """Score a channel by the error of the layers that read it after it, and all channels before it, are dropped.

    Some layers cannot be refitted: a layer too wide for a Gram matrix, and a product of activations, which has no
    weights. For those the terms of the channels in a sample of the outputs take the place of the columns: a channel is
    dropped with its term, and the terms of the others are multiplied to compensate it.
    """
    unit = task.zero_scores()
    effects = output_sensitivity(task)
    others = [(i, r) for i, r in enumerate(task.readers) if not has_gram(r)]
    seen = [SampledOutputs.of(reader, task, np.random.default_rng(i)) for i, reader in others]
    if seen:
        measure_outputs(task, seen)
    where = {id(group): i for i, group in enumerate(task.groups.prunable)}
    for batch in gram_batches(task, task.groups.prunable):
        for group, grams in batch:
            blocks = [block for gram in grams for block in _blocks(gram, group, effects[gram.reader.node], task)]
            for outputs in seen:
                if where[id(group)] in outputs.grams:
                    blocks.append(_block_of_outputs(outputs, where[id(group)]))
            if blocks:
                order, errors = eliminate(blocks, len(group.units))
                unit[group.units[order]] = errors
    return Scores(unit)


@dataclass
class Block:
    """The columns that one group of a layer reads, and their weights.

    Attributes:
        gram: float64[K, K], X'X of the centred columns, for one row.
        weight: float64[K, O], in units of the square root of the loss.
        seats: int64[K], the index in the group of the unit of each column; n or more for columns of other groups.
    """

    gram: Tensor
    weight: Tensor
    seats: Tensor


def _blocks(gram: Gram, group: Group, effect: Tensor, task: Task) -> Iterator[Block]:
    """Yield a block for each group of a grouped convolution; effect: float64[C_out], see `output_sensitivity`."""
    groups, _, inputs, kernel = gram.matrix.shape
    at = torch.from_numpy(seats(gram.reader, group, len(task.groups.root)))
    per_column = at.view(groups, inputs, 1).expand(-1, -1, kernel).flatten(1)
    rows = gram.centred
    centred = (rows.gram.double() / rows.count.clamp(min=1)[:, None, None]).cpu()
    scale = (effect.view(groups, 1, -1) * gram.reader.patches / 2).sqrt()
    weight = gram.matrix.cpu().permute(0, 2, 3, 1).flatten(1, 2) * scale
    for i in range(groups):
        yield Block(centred[i], weight[i], per_column[i])


def _block_of_outputs(outputs: SampledOutputs, group: int) -> Block:
    """Return the terms of a group's units in sampled outputs as a block; group: its number."""
    gram = torch.from_numpy(outputs.grams[group] / max(outputs.energy, _TINY))
    return Block(gram, torch.ones(len(gram), 1, dtype=torch.float64), torch.arange(len(gram)))


def eliminate(blocks: list[Block], units: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Drop all units one by one, or several at a time where many are left.

    Args:
        blocks: the blocks of all layers that read the units.
        units: n, the number of units.

    Returns:
        (int64[n] the units in the order in which they are dropped, float64[n] the error after each drop).
    """
    states = [_State.of(block, units) for block in blocks]
    left = np.ones(units, dtype=bool)
    order: list[int] = []
    errors: list[float] = []
    error = 0.0
    while left.any():
        costs = np.sum([state.costs() for state in states], axis=0)
        costs[~left] = np.inf
        dropped = np.argsort(costs, kind="stable")[: max(1, int(left.sum()) // TOGETHER)]
        grown = sum(state.drop(dropped) for state in states)
        errors += (error + grown * np.arange(1, len(dropped) + 1) / len(dropped)).tolist()
        order += dropped.tolist()
        error += grown
        left[dropped] = False
    return np.asarray(order), np.asarray(errors)


@dataclass
class _State:
    """A block while its units are dropped.

    Attributes:
        inverse: float64[K, K], the inverse of X'X of the kept columns; 0 for dropped columns.
        weight: float64[K, O], refitted to the kept columns.
        left: the kept units, those with the same number of columns together: (int64[n] the units, int64[n, m] their
            columns).
        units: the number of all units.
    """

    inverse: Tensor
    weight: Tensor
    left: list[tuple[Tensor, Tensor]]
    units: int

    @classmethod
    def of(cls, block: Block, units: int) -> _State:
        """Return the state in which no unit is dropped."""
        columns: dict[int, list[int]] = {}
        for column, seat in enumerate(block.seats.tolist()):
            if seat < units:
                columns.setdefault(seat, []).append(column)
        left = []
        for count in sorted({len(each) for each in columns.values()}):
            some = [unit for unit, each in columns.items() if len(each) == count]
            left.append((torch.tensor(some), torch.tensor([columns[unit] for unit in some])))
        return cls(torch.linalg.inv(damped(block.gram, RIDGE)), block.weight.clone(), left, units)

    def costs(self) -> NDArray[np.float64]:
        """Return by how much the error grows if each unit is dropped alone: float64[n]."""
        found = torch.zeros(self.units, dtype=torch.float64)
        for units, columns in self.left:
            inverse, weight = self.inverse[columns[:, :, None], columns[:, None, :]], self.weight[columns]
            found[units] = (weight * torch.linalg.solve(inverse, weight)).sum((1, 2))
        return found.numpy()

    def drop(self, dropped: NDArray[np.int64]) -> float:
        """Drop units, refit the others, and return by how much the error grows."""
        columns = []
        for i, (units, places) in enumerate(self.left):
            is_dropped = torch.from_numpy(np.isin(units.numpy(), dropped))
            columns.append(places[is_dropped].flatten())
            self.left[i] = units[~is_dropped], places[~is_dropped]
        at = torch.cat(columns) if columns else torch.zeros(0, dtype=torch.int64)
        if not len(at):
            return 0.0
        rows, weight = self.inverse[at], self.weight[at]
        moved = torch.linalg.solve(rows[:, at], torch.cat([rows, weight], 1))
        tall = self.inverse[:, at]
        self.inverse -= tall @ moved[:, : len(self.inverse)]
        self.weight -= tall @ moved[:, len(self.inverse) :]
        return max(0.0, float((weight * moved[:, len(self.inverse) :]).sum()))

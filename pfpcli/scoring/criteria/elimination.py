"""Elimination: whole channels go one by one, each time the one whose loss the layers that read it can best make good.

A layer reads columns x and puts out W x. When the columns u go and W is refitted to what stays, its squared error grows
by

    tr(W_u' (H_uu)^-1 W_u),    H = (X'X)^-1

with W as it was refitted before; then W and H are brought up to date, with no new fit (the inverse of a matrix without
some rows and columns). An error of an output counts as much as the loss feels it (`gradients.felt`).

Source: Hassibi and Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NIPS 1992, here for
blocks of columns and with the loss of each layer in the place of the network's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.activations.gram_matrices import RIDGE, Gram, bundles, is_solved
from pfpcli.activations.least_squares import damped
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import seats
from pfpcli.scoring.criteria.activations import Outputs, walk_outputs
from pfpcli.scoring.criteria.gradients import felt
from pfpcli.scoring.scores import Scores

#: Of so many units that are left one goes at a time: all of fewer go one by one.
TOGETHER = 32
#: Squares that are this small together are none.
_TINY = 1e-30


def obs(task: Task) -> Scores:
    """By how much the loss has grown when a channel goes, with all that go before it gone and made good.

    A layer that is too wide to be solved for, and a product of activations, which has no weights to refit, is looked
    at through some of its outputs: a channel goes with what it adds to them, and the others are multiplied to make it
    good.
    """
    unit = task.nothing()
    weights = felt(task)
    others = [(i, r) for i, r in enumerate(task.readers) if not is_solved(r)]
    seen = [Outputs.of(reader, task, np.random.default_rng(i)) for i, reader in others]
    if seen:
        walk_outputs(task, seen)
    where = {id(group): i for i, group in enumerate(task.groups.prunable)}
    for bundle in bundles(task, task.groups.prunable):
        for group, grams in bundle:
            blocks = [block for gram in grams for block in _blocks(gram, group, weights[gram.reader.node], task)]
            for outputs in seen:
                if where[id(group)] in outputs.grams:
                    blocks.append(_of_outputs(outputs, where[id(group)]))
            if blocks:
                order, errors = eliminate(blocks, len(group.units))
                unit[group.units[order]] = errors
    return Scores(unit)


@dataclass
class Block:
    """Columns that one part of a layer reads, and the weights they are read with.

    Attributes:
        gram: float64[K, K], X'X about its mean, for one image.
        weight: float64[K, O], in units of the square root of the loss.
        seats: int64[K], where in a group the unit of each column is; at least its size where it stays.
    """

    gram: Tensor
    weight: Tensor
    seats: Tensor


def _blocks(gram: Gram, group: Group, felt: Tensor, task: Task) -> Iterator[Block]:
    """One for each group of a grouped convolution; felt: float64[C_out]."""
    groups, _, inputs, kernel = gram.matrix.shape
    at = torch.from_numpy(seats(gram.reader, group, len(task.groups.root)))
    per_column = at.view(groups, inputs, 1).expand(-1, -1, kernel).flatten(1)
    normal = gram.normal
    centred = (normal.gram[:, :-1, :-1] / normal.count - normal.mean.mT @ normal.mean).cpu()
    scale = (felt.view(groups, 1, -1) * gram.reader.patches / 2).sqrt()
    weight = gram.matrix.cpu().permute(0, 2, 3, 1).flatten(1, 2) * scale
    for i in range(groups):
        yield Block(centred[i], weight[i], per_column[i])


def _of_outputs(outputs: Outputs, group: int) -> Block:
    gram = torch.from_numpy(outputs.grams[group] / max(outputs.energy, _TINY))
    return Block(gram, torch.ones(len(gram), 1, dtype=torch.float64), torch.arange(len(gram)))


def eliminate(blocks: list[Block], units: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Backward elimination, of several units at a time where there are many.

    Args:
        blocks: all that read the units.
        units: their number n.

    Returns:
        (int64[n] the units in the order they go, float64[n] the error once each has gone).
    """
    states = [_State.of(block, units) for block in blocks]
    left = np.ones(units, dtype=bool)
    order: list[int] = []
    errors: list[float] = []
    error = 0.0
    while left.any():
        costs = np.sum([state.costs() for state in states], axis=0)
        costs[~left] = np.inf
        gone = np.argsort(costs, kind="stable")[: max(1, int(left.sum()) // TOGETHER)]
        grown = sum(state.drop(gone) for state in states)
        errors += (error + grown * np.arange(1, len(gone) + 1) / len(gone)).tolist()
        order += gone.tolist()
        error += grown
        left[gone] = False
    return np.asarray(order), np.asarray(errors)


@dataclass
class _State:
    """A block while units of it go.

    Attributes:
        inverse: float64[K, K], the inverse of what is left of X'X; what is gone is 0.
        weight: float64[K, O], refitted to what is left.
        left: of the units that have as many columns each: (int64[n] which, int64[n, m] their columns).
        units: all units there are.
    """

    inverse: Tensor
    weight: Tensor
    left: list[tuple[Tensor, Tensor]]
    units: int

    @classmethod
    def of(cls, block: Block, units: int) -> _State:
        """Nothing is gone yet."""
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
        """float64[n], by how much the error grows with each unit."""
        found = torch.zeros(self.units, dtype=torch.float64)
        for units, columns in self.left:
            inverse, weight = self.inverse[columns[:, :, None], columns[:, None, :]], self.weight[columns]
            found[units] = (weight * torch.linalg.solve(inverse, weight)).sum((1, 2))
        return found.numpy()

    def drop(self, gone: NDArray[np.int64]) -> float:
        """Units go, and the others make them good; returns by how much the error grows."""
        columns = []
        for i, (units, places) in enumerate(self.left):
            goes = torch.from_numpy(np.isin(units.numpy(), gone))
            columns.append(places[goes].flatten())
            self.left[i] = units[~goes], places[~goes]
        at = torch.cat(columns) if columns else torch.zeros(0, dtype=torch.int64)
        if not len(at):
            return 0.0
        rows, weight = self.inverse[at], self.weight[at]
        moved = torch.linalg.solve(rows[:, at], torch.cat([rows, weight], 1))
        tall = self.inverse[:, at]
        self.inverse -= tall @ moved[:, : len(self.inverse)]
        self.weight -= tall @ moved[:, len(self.inverse) :]
        return max(0.0, float((weight * moved[:, len(self.inverse) :]).sum()))

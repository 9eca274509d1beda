"""The sensitivity of Provable Filter Pruning at every layer that reads channels, in one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.activations.unit_columns import are_distinct, merge_by_unit
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.rules import Columns
from pfpcli.scoring import pfp
from pfpcli.scoring.criteria.one_walk import in_one_walk
from pfpcli.scoring.scores import LayerScores, Scores


def sensitivity(task: Task) -> Scores:
    """Score by the largest sensitivity of a unit at any layer that reads it: the error bound holds at each of them.

    In a product of activations the other operand takes the place of the weights. The error bound does not cover it.
    """
    [found] = in_one_walk(task, Sensitivity(task))
    return found


class Sensitivity:
    """The criterion `sensitivity`, as `one_walk.Looking`.

    Args:
        task: the network and its scoring images.
    """

    def __init__(self, task: Task) -> None:
        self._reduce, self._labels = task.reduce, len(task.groups.root)
        self._seen = {id(reader): _LargestShares.of(reader, self._labels, task.device) for reader in task.readers}

    def look(self, reader: Reader, x: Tensor, weight: Tensor) -> None:
        """Add what a layer reads of some images."""
        self._seen[id(reader)].add(x, weight, self._reduce)

    def scores(self) -> Scores:
        """Return the scores, with the sensitivities at each layer."""
        layers = [each.scores() for each in self._seen.values()]
        unit = np.full(self._labels, np.nan)
        for layer in layers:
            unit[layer.units] = np.fmax(unit[layer.units], layer.shares)
        return Scores(unit, tuple(layers))


@dataclass
class _LargestShares:
    """The largest shares at a layer over the images so far.

    Attributes:
        reader: the layer.
        channel: float[C_in], of every channel.
        unit: float[labels], of every unit.
    """

    reader: Reader
    channel: Tensor = field(repr=False)
    unit: Tensor = field(repr=False)

    @classmethod
    def of(cls, reader: Reader, labels: int, device: torch.device) -> _LargestShares:
        """Return the shares of no images: 0."""
        return cls(reader, torch.zeros(len(reader.units), device=device), torch.zeros(labels, device=device))

    def add(self, x: Tensor, weight: Tensor, reduce: str) -> None:
        """Add the inputs of the layer for some images; x and weight as for `walk.Look`."""
        for columns in self.reader.pieces(x, weight):
            groups, channels = columns.x.shape[1:3]
            known = self.channel.repeat(groups * channels // len(self.channel)).view(groups, channels)
            shares = pfp.sensitivity(columns, reduce, known)
            self.channel = shares.view(-1, len(self.channel)).amax(0)
            units = torch.from_numpy(self.reader.units).view(-1, channels)
            units = units.repeat(groups // len(units), 1)
            if are_distinct(units):
                self._add_shares(units.flatten(), shares.flatten())
            else:
                self._add_merged(columns, units, reduce)
            if self.reader.heads.any():
                self._add_merged(columns, torch.from_numpy(self.reader.heads).view(-1, channels), reduce)
        self.unit[0] = 0

    def _add_merged(self, columns: Columns, units: Tensor, reduce: str) -> None:
        """Add the shares of units that have several channels; units: int64[G, J]."""
        for group in range(len(units)):
            of_group = Columns(columns.x[:, group : group + 1], columns.weight[group : group + 1])
            members, merged = merge_by_unit(of_group, units[group])
            known = self.unit[members.to(self.unit.device)]
            self._add_shares(members, pfp.sensitivity(merged, reduce, known[None])[0])

    def _add_shares(self, units: Tensor, shares: Tensor) -> None:
        self.unit.scatter_reduce_(0, units.to(shares.device), shares, "amax")

    def scores(self) -> LayerScores:
        """Return the sensitivities, from the images of all processes."""
        reader, channel, unit = self.reader, processes.largest(self.channel), processes.largest(self.unit)
        units = np.unique([*reader.units[reader.units > 0], *reader.heads[reader.heads > 0]]).astype(np.int64)
        return LayerScores(
            reader.name,
            channel.double().cpu().numpy(),
            units,
            unit.double().cpu().numpy()[units],
            reader.patches,
            reader.kernel,
            reader.neurons,
            reader.has_weights,
        )

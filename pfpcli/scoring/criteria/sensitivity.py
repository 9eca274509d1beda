"""The sensitivity of Provable Filter Pruning, at every layer that reads channels, in one pass over the images."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.columns import by_unit, is_distinct
from pfpcli.activations.task import Task
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.rules import Columns
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import LayerScores, Scores


def sensitivity(task: Task) -> Scores:
    """The largest sensitivity of a unit at any layer that reads it; the guarantee has to hold at each of them.

    For products of activations the number is the same, with the other operand as weights; the guarantee does not cover
    them, and what is read by nothing else is all they score.
    """
    seen = [_Seen.of(reader, len(task.groups.root), task.device) for reader in task.readers]
    by_reader = {id(one.reader): one for one in seen}
    task.walk(lambda reader, x, weight: by_reader[id(reader)].look(x, weight, task.reduce))
    unit = np.full(len(task.groups.root), np.nan)
    layers = []
    for one in seen:
        layer = one.scores()
        unit[layer.units] = np.fmax(unit[layer.units], layer.shares)
        layers.append(layer)
    return Scores(unit, tuple(layers))


@dataclass
class _Seen:
    """A reader and the largest shares so far: of every channel, and of every unit.

    Attributes:
        channel: float[C_in].
        unit: float[labels].
    """

    reader: Reader
    channel: Tensor = field(repr=False)
    unit: Tensor = field(repr=False)

    @classmethod
    def of(cls, reader: Reader, labels: int, device: torch.device) -> _Seen:
        return cls(reader, torch.zeros(len(reader.units), device=device), torch.zeros(labels, device=device))

    def look(self, x: Tensor, weight: Tensor, reduce: str) -> None:
        """See what the reader reads now."""
        for columns in self.reader.pieces(x, weight):
            groups, channels = columns.x.shape[1:3]
            shares = pfp.sensitivity(columns, reduce)
            by_channel = shares.view(-1, len(self.reader.units)).amax(0)
            torch.maximum(self.channel, by_channel, out=self.channel)
            units = torch.from_numpy(self.reader.units).view(-1, channels)
            units = units.repeat(groups // len(units), 1)
            if is_distinct(units):
                self._raise(units.flatten(), shares.flatten())
            else:
                self._raise_gathered(columns, units, reduce)
            if self.reader.heads.any():
                self._raise_gathered(columns, torch.from_numpy(self.reader.heads).view(-1, channels), reduce)
        self.unit[0] = 0

    def _raise_gathered(self, columns: Columns, units: Tensor, reduce: str) -> None:
        for group in range(len(units)):
            of_group = Columns(columns.x[:, group : group + 1], columns.weight[group : group + 1])
            members, gathered = by_unit(of_group, units[group])
            self._raise(members, pfp.sensitivity(gathered, reduce)[0])

    def _raise(self, units: Tensor, shares: Tensor) -> None:
        self.unit.scatter_reduce_(0, units.to(shares.device), shares, "amax")

    def scores(self) -> LayerScores:
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

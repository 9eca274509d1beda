"""Scores: a number for each unit that says how much it matters."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli.activations.task import Batch
from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import Reader
from pfpcli.scoring import pfp


@dataclass(frozen=True)
class LayerScores:
    """The sensitivities at one layer.

    Attributes:
        name: name of the layer.
        channels: float64[C_in], the sensitivity of every channel that the layer reads, each on its own.
        units: int64[U], the units that the layer reads.
        shares: float64[U], the sensitivities of the units; the share of a unit is the sum of its channels' shares.
        patches, kernel, neurons: see `Reader`.
        has_weights: whether the layer has weights; the error bound does not cover products of activations.
    """

    name: str
    channels: NDArray[np.float64]
    units: NDArray[np.int64]
    shares: NDArray[np.float64]
    patches: int
    kernel: int
    neurons: int
    has_weights: bool

    @property
    def total(self) -> float:
        """The sum of the sensitivities of all channels."""
        return float(self.channels.sum())

    def log(self, delta: float) -> float:
        """Return `pfp.log_term` of the layer."""
        return pfp.log_term(self.patches, self.kernel, delta)


@dataclass(frozen=True)
class Scores:
    """The scores of a network.

    Attributes:
        unit: float64[labels], the score of each unit; nan for a unit without one.
        layers: the sensitivities at each layer; empty for a criterion that computes none.
        samples: number of scoring images that were used.
        remarks: sentences about the scores for the user.
    """

    unit: NDArray[np.float64]
    layers: tuple[LayerScores, ...] = ()
    samples: int = 0
    remarks: tuple[str, ...] = ()

    def of(self, group: Group) -> NDArray[np.float64]:
        """Return the scores of a group's units: float64[n]."""
        return self.unit[group.units]

    def log(self, delta: float) -> NDArray[np.float64]:
        """Return for each unit the largest `pfp.log_term` of the layers that read it: float64[labels]."""
        log = np.zeros(len(self.unit))
        for layer in self.layers:
            log[layer.units] = np.maximum(log[layer.units], layer.log(delta))
        return log


@dataclass
class Counter:
    """Images of which the largest number that a pass asks for is remembered.

    Attributes:
        batches: returns an iterable over the images.
        most: the largest number of images so far.
    """

    batches: Callable[[], Iterable[Batch]]
    most: int = 0

    def __call__(self) -> Iterator[Batch]:
        """Yield the images."""
        done = 0
        for images, labels in self.batches():
            done += len(images)
            self.most = max(self.most, done)
            yield images, labels


def set_size(readers: list[Reader], delta: float = pfp.DELTA) -> int:
    """Return the number of scoring images that the error bound needs, for a network with these layers."""
    return pfp.set_size([reader.neurons for reader in readers if reader.has_weights], delta)

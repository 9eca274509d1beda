"""Scores: a number for each channel that says how much it matters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.groups import Group
from pfpcli.channels.reading_layers import Reader
from pfpcli.scoring import pfp


@dataclass(frozen=True)
class LayerScores:
    """The sensitivities at one layer.

    Attributes:
        name: of the layer.
        channels: float64[C_in], of every channel it reads, each on its own.
        units: int64[U], the units it reads.
        shares: float64[U], of the units: channels that go together have one share, their sum.
        patches, kernel, neurons: see `Reader`.
        has_weights: whether it has weights; for a product of activations nothing is guaranteed.
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
        """Sum of the sensitivities of what it reads."""
        return float(self.channels.sum())

    def log(self, delta: float) -> float:
        """See `pfp.log_term`."""
        return pfp.log_term(self.patches, self.kernel, delta)


@dataclass(frozen=True)
class Scores:
    """What scoring came to.

    Attributes:
        unit: float64[labels], the score of each unit; nan where nothing was measured.
        layers: the sensitivities at each layer; none for other criteria.
        samples: images scored.
        remarks: what a user should know about the scores.
    """

    unit: NDArray[np.float64]
    layers: tuple[LayerScores, ...] = ()
    samples: int = 0
    remarks: tuple[str, ...] = ()

    def of(self, group: Group) -> NDArray[np.float64]:
        """float64[n], the scores of a group's units."""
        return self.unit[group.units]

    def log(self, delta: float) -> NDArray[np.float64]:
        """float64[labels], the largest `pfp.log_term` of the layers that read a unit."""
        log = np.zeros(len(self.unit))
        for layer in self.layers:
            log[layer.units] = np.maximum(log[layer.units], layer.log(delta))
        return log


@dataclass
class Counter:
    """Passes progress on and remembers how far it went."""

    progress: Callable[[int], None]
    most: int = 0

    def __call__(self, done: int) -> None:
        """So many images are done."""
        self.most = max(self.most, done)
        self.progress(done)


def set_size(readers: list[Reader], delta: float = pfp.DELTA) -> int:
    """How many calibration images the guarantee asks for."""
    return pfp.set_size([reader.neurons for reader in readers if reader.has_weights], delta)

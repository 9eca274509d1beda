"""Score: every unit gets a number that says how much it matters, by the criterion that was asked for.

A criterion that looks at activations streams: only what it sums up or the largest it has seen stays. The order of the
images, the batch size and the device do not matter beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib import import_module

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.channels.groups import Group, Groups
from pfpcli.channels.reading_layers import Look, Reader, Walk
from pfpcli.scoring import pfp
from pfpcli.scoring.criteria import CRITERIA

#: Images and their labels, int64[N] or None.
Batch = tuple[Tensor, NDArray[np.int64] | None]


@dataclass(frozen=True)
class Task:
    """What a criterion works with.

    Attributes:
        groups: the graph's units.
        readers: the layers that read channels.
        batches: the calibration images, anew with every call, float[N, ...] with labels.
        device: where to compute; the graph's tensors are there.
        reduce: over kernel positions, "sum" or "max".
        seed: of every random choice.
        progress: told the number of images done.
    """

    groups: Groups
    readers: list[Reader]
    batches: Callable[[], Iterable[Batch]]
    device: torch.device
    reduce: str = "sum"
    seed: int = 0
    progress: Callable[[int], None] = lambda done: None

    def images(self, most: int | None = None) -> Iterator[Batch]:
        """The calibration images, on the device; at most so many, if the network takes any number at a time.

        Of several processes each gets its own, maybe none: what is summed up over images, or the largest of them, has
        to be combined by `processes.total` or `processes.largest` before anything is made of it.
        """
        done = 0
        for x, labels in self.batches():
            if most is not None and done >= most:
                return
            if most is not None and self.groups.labelled.graph.dynamic:
                x, labels = x[: most - done], None if labels is None else labels[: most - done]
            if processes.is_mine(x):
                yield x.to(self.device), labels
            done += len(x)
            self.progress(done)

    def nothing(self) -> NDArray[np.float64]:
        """float64[labels], to add scores to: 0, and nan for heads, which are the sum of what they own."""
        unit = np.zeros(len(self.groups.root))
        unit[[*self.groups.owned]] = np.nan
        for reader in self.readers:
            unit[reader.units] = 0
        return unit

    def walk(self, look: Look, readers: Iterable[Reader] | None = None) -> None:
        """Run the images (see `images`) through the network and show what its readers (or these) read."""
        walk = Walk(self.groups.labelled.graph.module, self.readers if readers is None else readers, look)
        with torch.no_grad():
            for x, _ in self.images():
                walk.run(x)


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


def score(criterion: str, task: Task) -> Scores:
    """Score every unit that a reader reads.

    Args:
        criterion: one of `pfpcli.scoring.criteria.CRITERIA`.
        task: what to score on.
    """
    module, _, name = CRITERIA[criterion].function.partition(":")
    function: Callable[[Task], Scores] = getattr(import_module(f"pfpcli.scoring.criteria.{module}"), name)
    counted = Counter(task.progress)
    with task.groups.labelled.graph.on(task.device):
        scores = function(replace(task, progress=counted))
    found = replace(scores, unit=_of_readers(scores.unit, task), samples=counted.most)
    # what was combined is the same for all, but what devices make of it may differ in the last digit
    return processes.of_first(lambda: found)


def _of_readers(unit: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """The scores of what readers read, nan elsewhere: every criterion scores the same units.

    A head without a score of its own gets the sum of what it owns.
    """
    read = np.zeros(len(unit), dtype=bool)
    for reader in task.readers:
        read[reader.units] = read[reader.heads] = True
    read[0] = False
    found = np.where(read, unit, np.nan)
    for head, owned in task.groups.owned.items():
        if read[head] and np.isnan(found[head]):
            found[head] = np.nansum(found[owned])
    return found


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

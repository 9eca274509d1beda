"""Task: a network, its images, and the layers that read channels."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import memory, processes
from pfpcli.activations.kept_halves import KeptHalves
from pfpcli.activations.walk import Look, Walk
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader

#: The most images that layers are refitted to, to choose orders and to measure curves.
FITTED = 128
#: Images, float[N, ...], and their class labels, int64[N] or None.
Batch = tuple[Tensor, NDArray[np.int64] | None]


@dataclass(frozen=True)
class Fitting:
    """The fitting images.

    Attributes:
        batches: returns an iterable over them, as for a task.
        most: the number of images that layers are refitted to, to choose orders and to measure curves.
        kept: what layers read of these images, as far as a step has kept it for the next one.
    """

    batches: Callable[[], Iterable[Batch]]
    most: int = FITTED
    kept: KeptHalves = field(default_factory=KeptHalves)


@dataclass(frozen=True)
class Task:
    """The input of a criterion.

    Attributes:
        groups: the groups of the network.
        readers: the layers that read channels.
        batches: returns an iterable over the images, from the first one with every call.
        device: where to compute; the tensors of the network are there.
        reduce: how sensitivities are combined over kernel positions, "sum" or "max".
        seed: of every random choice.
        progress: called with the number of images done.
        fitting: the images that layers are refitted to; None stands for the same images.
    """

    groups: Groups
    readers: list[Reader]
    batches: Callable[[], Iterable[Batch]]
    device: torch.device
    reduce: str = "sum"
    seed: int = 0
    progress: Callable[[int], None] = lambda done: None
    fitting: Fitting | None = None

    def images(self, most: int | None = None) -> Iterator[Batch]:
        """Yield the images, on the device.

        Each of several processes gets its own share of the images, which may be none. So a sum or a maximum over images
        has to be combined by `processes.total` or `processes.largest` before it is used.

        Args:
            most: the largest number of images; whole batches, if the network has a fixed batch size.
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
            memory.give_back_if_grown()
            self.progress(done)

    def zero_scores(self) -> NDArray[np.float64]:
        """Return scores to add to, float64[labels]: 0 for each unit, and nan for a head that no layer reads as a whole.

        The score of such a head is the sum of the scores of its units, see `scoring.score`.
        """
        unit = np.zeros(len(self.groups.root))
        unit[[*self.groups.owned]] = np.nan
        for reader in self.readers:
            unit[reader.units] = 0
        return unit

    def walk(self, look: Look, readers: Iterable[Reader] | None = None, most: int | None = None) -> None:
        """Run the images through the network and call `look` with what each layer reads.

        Args:
            look: see `walk.Look`.
            readers: the layers to look at; None stands for all of the task.
            most: the largest number of images, see `images`.
        """
        walk = Walk(self.groups.labelled.graph.module, self.readers if readers is None else readers, look)
        with torch.no_grad():
            for x, _ in self.images(most):
                walk.run(x)

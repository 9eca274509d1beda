"""Task: a network, images for it, and the layers whose inputs are looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.walk import Look, Walk
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader

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

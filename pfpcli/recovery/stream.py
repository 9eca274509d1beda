"""Stream: the images a network is trained on, again and again, in another order and slightly changed each time.

Every random choice depends on the seed, the epoch and the number of the batch alone, so training that was interrupted
sees what it would have seen.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration

#: Bytes of decoded images that are held in memory; more are read again in each epoch.
HELD = 1 << 30
#: Bytes that the values of a network and their gradients may take for one batch on the CPU; on a GPU, a part of what
#: is free there.
_CPU_BYTES, _GPU_PART = 2 << 30, 0.25

Labels = NDArray[np.int64] | None


class Stream:
    """Some images of a folder as batches for training.

    Args:
        calibration: where they come from.
        indices: int64[N], which ones.
        batch: images at a time; an epoch's last batch may be smaller.
        fixed: the network takes no other batch: an epoch leaves out what does not fill one, and repeats the images
            where they are too few for one.
        seed: of the order and the changes.
    """

    def __init__(
        self, calibration: Calibration, indices: NDArray[np.int64], batch: int, *, fixed: bool, seed: int
    ) -> None:
        self.indices = indices
        self.batch = batch
        self._calibration = calibration
        self._fixed = fixed
        self._seed = seed
        self._held: tuple[Tensor, Labels] | None = None
        if len(indices) * int(np.prod(calibration.size)) * 4 <= HELD:
            parts = list(calibration.batches(None, indices))
            labels = None if parts[0][1] is None else np.concatenate([each for _, each in parts])
            self._held = torch.cat([images for images, _ in parts]), labels

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self._order(0)) // self.batch)

    @property
    def images(self) -> int:
        """How many images there are; those that could not be read are not among them."""
        return len(self.indices) if self._held is None else len(self._held[0])

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Labels]]:
        """The batches of an epoch from the `start`-th on: float[B, ...] and their labels, int64[B] or None."""
        order = self._order(number)[start * self.batch :]
        if self._held is None:
            yield from self._calibration.batches(self.batch if self._fixed else None, self.indices[order])
            return
        images, labels = self._held
        for first in range(0, len(order), self.batch):
            chosen = order[first : first + self.batch]
            yield images[torch.from_numpy(chosen)], None if labels is None else labels[chosen]

    def generator(self, epoch: int, number: int) -> torch.Generator:
        """For the random changes of a batch."""
        seeds = np.random.SeedSequence([self._seed, epoch, number]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seeds[0] >> np.uint64(1)))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = np.random.default_rng([self._seed, epoch]).permutation(self.images)
        if not self._fixed:
            return order
        return np.resize(order, max(1, len(order) // self.batch) * self.batch)


def batch_size(graphs: list[Graph], device: torch.device, most: int) -> int:
    """Images that networks can be trained on at a time, by the sizes of the values in them; a fixed batch is taken."""
    fixed = next((graph.fixed_batch for graph in graphs if graph.fixed_batch), None)
    if fixed is not None:
        return fixed
    numbers = sum(_numbers(graph) for graph in graphs)
    free = _CPU_BYTES if device.type != "cuda" else int(torch.cuda.mem_get_info(device)[0] * _GPU_PART)
    # a value, its gradient, and what is kept for the way back
    return max(1, min(most, free // (3 * 4 * numbers)))


def _numbers(graph: Graph) -> int:
    """Numbers among the values of a network for one image."""
    values = [node.meta["val"] for node in graph.nodes if node.op == "call_function"]
    return sum(value.numel() for value in values if isinstance(value, Tensor)) // graph.batch

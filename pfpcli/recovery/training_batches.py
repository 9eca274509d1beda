"""Training batches: the images that a network is trained on, in a new order in every epoch.

Every random choice depends only on the seed, the epoch and the index of the batch. Training that continues after an
interruption therefore gets the same batches as training without one.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration

#: Bytes of decoded images that are kept in memory. Larger sets are decoded again in every epoch.
KEPT_BYTES = 1 << 30
#: Bytes on the CPU, or the fraction of free GPU memory, for the values and gradients of the networks on one batch.
_CPU_BYTES, _GPU_FRACTION = 2 << 30, 0.25

#: Class labels of a batch, int64[B], or None.
Labels = NDArray[np.int64] | None


class TrainingBatches:
    """Some images of a folder, as batches for training.

    Args:
        calibration: the folder.
        indices: int64[N], the images.
        batch: the batch size; the last batch of an epoch may be smaller.
        fixed: whether the network takes no other batch size. An epoch then leaves out the images that do not fill a
            batch, or repeats images if there are fewer than one batch.
        seed: the seed of the order and of the random changes.
    """

    def __init__(
        self, calibration: Calibration, indices: NDArray[np.int64], batch: int, *, fixed: bool, seed: int
    ) -> None:
        self.indices = indices
        self.batch = batch
        self._calibration = calibration
        self._fixed = fixed
        self._seed = seed
        self._decoded: tuple[Tensor, Labels] | None = None
        if len(indices) * int(np.prod(calibration.size)) * 4 <= KEPT_BYTES:
            parts = list(calibration.batches(None, indices))
            labels = None if parts[0][1] is None else np.concatenate([each for _, each in parts])
            self._decoded = torch.cat([images for images, _ in parts]), labels

    def __len__(self) -> int:
        """The number of batches in an epoch."""
        return -(-len(self._order(0)) // self.batch)

    @property
    def images(self) -> int:
        """The number of images. If the images are in memory, unreadable images do not count."""
        return len(self.indices) if self._decoded is None else len(self._decoded[0])

    def epoch(self, number: int, start: int = 0) -> Iterator[tuple[Tensor, Labels]]:
        """The batches of an epoch from batch `start` on: float[B, ...] and their labels, int64[B] or None."""
        order = self._order(number)[start * self.batch :]
        if self._decoded is None:
            yield from self._calibration.batches(self.batch if self._fixed else None, self.indices[order])
            return
        images, labels = self._decoded
        for first in range(0, len(order), self.batch):
            chosen = order[first : first + self.batch]
            yield images[torch.from_numpy(chosen)], None if labels is None else labels[chosen]

    def generator(self, epoch: int, number: int) -> torch.Generator:
        """The random generator for the changes of a batch."""
        seeds = np.random.SeedSequence([self._seed, epoch, number]).generate_state(1, np.uint64)
        return torch.Generator().manual_seed(int(seeds[0] >> np.uint64(1)))

    def _order(self, epoch: int) -> NDArray[np.int64]:
        order = np.random.default_rng([self._seed, epoch]).permutation(self.images)
        if not self._fixed:
            return order
        return np.resize(order, max(1, len(order) // self.batch) * self.batch)


def batch_size(graphs: list[Graph], device: torch.device, most: int) -> int:
    """The largest batch size whose values and gradients fit into memory, at most `most`; or the fixed batch size."""
    fixed = next((graph.fixed_batch for graph in graphs if graph.fixed_batch), None)
    if fixed is not None:
        return fixed
    numbers = sum(_numbers(graph) for graph in graphs)
    free = _CPU_BYTES if device.type != "cuda" else int(torch.cuda.mem_get_info(device)[0] * _GPU_FRACTION)
    # three float32 tensors for each value: the value, its gradient, and what the backward pass keeps
    return max(1, min(most, free // (3 * 4 * numbers)))


def _numbers(graph: Graph) -> int:
    """The number of values that the calls of a network compute for one image."""
    values = [node.meta["val"] for node in graph.nodes if node.op == "call_function"]
    return sum(value.numel() for value in values if isinstance(value, Tensor)) // graph.batch

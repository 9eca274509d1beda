"""Kind: what every kind of role has, its losses and its quality."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.graph.role import Role

#: Distances are relative to the size of the output, or to this where the output is smaller.
TINY = 1e-6
#: A distance is never larger than this, even if the outputs are not finite: records hold finite numbers.
FARTHEST = 1e9
#: What is known about some images: class labels int64[N], masks int64[N, H, W], target images float32[N, C, H, W].
Labels = NDArray[Any] | None


@dataclass(frozen=True)
class Judged:
    """What a tally came to.

    Attributes:
        metric: the name of the metric.
        meaning: what it is, for people.
        before, after: the metric of the original and of the other network, 0 to 1.
        measures: name -> further measures.
        distance: L2 distance from the original's output, relative to its norm.
    """

    metric: str
    meaning: str
    before: float
    after: float
    measures: dict[str, float]
    distance: float


class Counts:
    """Sums over images, and largest values; they grow batch by batch.

    Attributes:
        sums: name -> a sum over the images; processes add them up.
        largest: name -> a largest value; processes take the largest.
    """

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.largest: dict[str, float] = {}

    def count(self, name: str, value: float) -> None:
        """Add to a sum."""
        self.sums[name] = self.sums.get(name, 0.0) + value

    def counted(self) -> dict[str, Any]:
        """Return the sums so far: name -> number or array. Those of several images add up."""
        return dict(self.sums)

    def recount(self, counted: dict[str, Any]) -> None:
        """Take other sums, as `counted` returns them."""
        self.sums = dict(counted)

    def gather(self) -> None:
        """Combine the sums of all processes; a process without images may lack names that others have."""
        for name in sorted({name for each in processes.gathered(list(self.sums)) for name in each}):
            self.sums[name] = processes.total(self.sums.get(name, 0.0))
        for name in sorted({name for each in processes.gathered(list(self.largest)) for name in each}):
            self.largest[name] = max(processes.gathered(self.largest.get(name, -math.inf)))


class Tally(Counts, ABC):
    """The counts of one output of two networks."""

    def __init__(self, role: Role) -> None:
        super().__init__()
        self.role = role

    def add(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Add a batch: the output of the original and of the other network, in the same shape."""
        finite = before.isfinite()  # a mask of -inf is no number to compare
        whole, now = before[finite].double(), after[finite].double()
        self.count("squares", float(whole.square().sum()))
        self.count("error", float((now - whole).square().sum().nan_to_num(nan=math.inf)))
        self.compare(before, after, labels)

    @property
    def distance(self) -> float:
        """The L2 distance from the original's output, relative to its norm."""
        squares, error = (self.sums.get(name, 0.0) for name in ("squares", "error"))
        return min(FARTHEST, (error / squares) ** 0.5 if squares else float(error > 0))

    @abstractmethod
    def compare(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Count what the metric needs."""

    @abstractmethod
    def judged(self) -> Judged:
        """Return the quality, after `gather`."""


class Kind(ABC):
    """The losses and the quality of one kind of role."""

    @abstractmethod
    def own_loss(self, output: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return a loss of each sample that needs no second network: float[N]."""

    @abstractmethod
    def divergence(self, output: Tensor, whole: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return how far an output is from the original's, summed over samples: float[]; `torch.func` may batch it."""

    @abstractmethod
    def likely(self, output: Tensor, axis: int | None, k: int) -> Tensor | None:
        """Return the k-th loss of those whose squared gradients sum up to the diagonal of the Fisher matrix.

        Returns:
            float[], or None where there are no more than k losses.
        """

    @abstractmethod
    def training(self, found: Tensor, wanted: Tensor, axis: int | None) -> Tensor:
        """Return the loss of a distillation: float[], the mean over samples."""

    @abstractmethod
    def tally(self, role: Role) -> Tally:
        """Return an empty tally for an output."""


def finite(output: Tensor, whole: Tensor) -> tuple[Tensor, Tensor]:
    """Return two outputs with 0 in both where the second one is not finite."""
    there = whole.isfinite()
    return torch.where(there, output, 0), torch.where(there, whole, 0)


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """Return the squared distance of two tensors, relative to the second: float[].

    The division is by the sum over the whole batch, so a sample of zeros does not divide by zero.
    """
    wanted = wanted.float()
    # one pass over a large map each; explicit squares take several passes, and as many again for the gradients
    length: Tensor = torch.linalg.vector_norm(wanted)
    if not length.isfinite():
        found, wanted = finite(found.float(), wanted)
        length = torch.linalg.vector_norm(wanted)
    return F.mse_loss(found.float(), wanted, reduction="sum") / length.square().clamp_min(1e-12)

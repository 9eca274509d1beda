"""Differences: how far the numbers of one output of two networks are apart, over many inputs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pfpcli.outputs.kinds.kind import FARTHEST


class Differences:
    """The differences of one output of two networks; they grow batch by batch.

    Where both outputs are not finite in the same way (nan and nan, infinities of one sign), they do not differ. Where
    only one of them is not finite, they differ by `FARTHEST`.

    Attributes:
        largest: the largest difference of two numbers.
        peak: the largest finite number of the first network, regardless of its sign.
        count: number of numbers compared.
    """

    def __init__(self) -> None:
        self.largest = 0.0
        self.peak = 0.0
        self.count = 0
        self._sum = 0.0

    @property
    def mean(self) -> float:
        """The mean difference of two numbers."""
        return min(FARTHEST, self._sum / self.count) if self.count else 0.0

    def add(self, first: Tensor, second: Tensor) -> None:
        """Add a batch: the output of both networks, in the same shape and of any real type."""
        a, b = first.detach().double(), second.detach().double()
        finite = a.isfinite() & b.isfinite()
        is_same = (a == b) | (a.isnan() & b.isnan())
        apart = torch.where(finite, (a - b).abs(), torch.where(is_same, 0.0, FARTHEST))
        self.count += apart.numel()
        if apart.numel():
            self.largest = max(self.largest, min(FARTHEST, float(apart.max())))
            self.peak = max(self.peak, float(torch.where(a.isfinite(), a, 0.0).abs().max()))
            self._sum += float(apart.sum())

    def is_within(self, atol: float, rtol: float) -> bool:
        """Whether no two numbers are more than `atol` + `rtol` · `peak` apart."""
        return self.largest <= self.allowed(atol, rtol)

    def allowed(self, atol: float, rtol: float) -> float:
        """The largest difference that is allowed."""
        allowed = atol + rtol * self.peak
        return allowed if math.isfinite(allowed) else FARTHEST

"""Centred equations: X'X of the rows of a layer less their mean.

What is large and nearly the same in all rows goes with the mean, so that float32 suffices for the rest. That takes half
of the memory of the `normal_equations` that it comes from.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pfpcli.activations.normal_equations import Normal

#: Rows of X'X that are centred together: X'X can be the largest tensor of a run.
_ROWS = 512


@dataclass(frozen=True)
class Centred:
    """X'X of rows less their mean, for each group of a grouped convolution.

    Attributes:
        count: float64[G], the number of rows.
        mean: float64[G, K], their mean.
        gram: float32[G, K, K], X'X.
    """

    count: Tensor
    mean: Tensor
    gram: Tensor

    @classmethod
    def of(cls, normal: Normal) -> Centred:
        """Return the rows of some equations, whose targets are not used."""
        count, mean = normal.gram[:, -1, -1], normal.mean[:, 0]
        gram = torch.empty(*mean.shape, mean.shape[1], device=mean.device)
        for start in range(0, mean.shape[1], _ROWS):
            some = slice(start, start + _ROWS)
            shift = mean[:, some, None] * count[:, None, None]
            gram[:, some] = torch.baddbmm(normal.gram[:, :-1, :-1][:, some], shift, mean[:, None], alpha=-1)
        return cls(count.clone(), mean, gram)

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not self.count.any()

    def ordered(self, group: int, order: Tensor) -> Centred:
        """Return the rows of one group with their columns in another order: int64[K]."""
        some = slice(group, group + 1)
        return Centred(self.count[some], self.mean[some, order], self.gram[some, order[:, None], order])

    def joined(self, other: Centred) -> Centred:
        """Return these rows and others together, with one mean."""
        count, apart = self.count + other.count, self.mean - other.mean
        parts = self.count[:, None] * self.mean + other.count[:, None] * other.mean
        gram = self.gram + other.gram
        weight = (self.count * other.count / count.clamp(min=1))[:, None, None]
        gram.baddbmm_((apart[:, :, None] * weight).float(), apart[:, None].float())
        return Centred(count, parts / count.clamp(min=1)[:, None], gram)

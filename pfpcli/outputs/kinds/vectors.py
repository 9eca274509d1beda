"""Embedding: vectors that are compared by their angle."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs.kinds.kind import Judged, Labels, Tally
from pfpcli.outputs.kinds.numbers import Regression


class Embedding(Regression):
    """One vector for each image (or place); only its direction counts."""

    def divergence(self, output: Tensor, whole: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return 1 minus the cosine, summed over samples and averaged over places."""
        return (1 - _cosines(output, whole)).mean() * len(whole)

    def training(self, found: Tensor, wanted: Tensor, axis: int | None) -> Tensor:
        """Return 1 minus the mean cosine, and the relative distance."""
        return (1 - _cosines(found.float(), wanted.float())).mean() + super().training(found, wanted, axis)

    def tally(self, role: Role) -> Tally:
        """Return an empty tally."""
        return _Angles(role)


def _cosines(output: Tensor, whole: Tensor) -> Tensor:
    """The cosine of each vector with the original's, along the last dimension of rows and the channels of maps."""
    return F.cosine_similarity(output, whole, dim=1 if whole.dim() in (2, 4) else -1)


class _Angles(Tally):
    """The mean and the worst cosine."""

    def compare(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Add the cosines of a batch."""
        cosines = torch.nan_to_num(_cosines(after.double(), before.double()), nan=0.0)
        self.count("cosines", float(cosines.sum()))
        self.count("vectors", cosines.numel())
        self.largest["away"] = max(self.largest.get("away", -1.0), float(-cosines.min()))

    def judged(self) -> Judged:
        """Return the mean cosine."""
        mean = self.sums.get("cosines", 0.0) / max(1.0, self.sums.get("vectors", 0.0))
        measures = {"worst cosine": -self.largest.get("away", 0.0)}
        meaning = "mean cosine to the original's vectors"
        return Judged("cosine", meaning, 1.0, max(0.0, mean), measures, self.distance)

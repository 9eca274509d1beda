"""Regression and boxes: real numbers of any meaning, compared one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs.kinds.kind import TINY, Judged, Kind, Labels, Tally, finite, relative

#: The fit of each column is measured if there are at most this many.
_COLUMNS = 256


class Regression(Kind):
    """Real numbers: coordinates, depths, features, anything that nothing else is known about."""

    def own_loss(self, output: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return half the mean square of each sample."""
        rows = len(output) if output.dim() else 1
        return torch.where(output.isfinite(), output, 0).reshape(rows, -1).square().mean(1) / 2

    def divergence(self, output: Tensor, whole: Tensor, axis: int | None, labels: Labels) -> Tensor:
        """Return the squared distance, relative to the size of the output, times the number of samples."""
        output, whole = finite(output, whole)
        return (output - whole).square().sum() / whole.square().sum().clamp(min=TINY) * len(whole)

    def likely(self, output: Tensor, axis: int | None, k: int) -> Tensor | None:
        """Return the product with noise, the same for all samples, relative to the size of the output.

        Its Fisher matrix is that of a squared relative distance.
        """
        if k:
            return None
        output = torch.where(output.isfinite(), output, 0)
        noise = torch.randn(output.shape[1:], generator=torch.Generator().manual_seed(0)).to(output)
        size = output.detach().square().sum() / max(1, len(output))
        return (output * noise).sum() / size.clamp(min=TINY).sqrt()

    def training(self, found: Tensor, wanted: Tensor, axis: int | None) -> Tensor:
        """Return the relative squared distance."""
        return relative(found, wanted)

    def tally(self, role: Role) -> Tally:
        """Return an empty tally."""
        return _Numbers(role)


class Boxes(Regression):
    """Four numbers for each place that has scores: the coordinates of boxes, decoded or not."""


class _Numbers(Tally):
    """The relative distance, and R² of each column (the last dimension, or the only one after the batch)."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self._columns: tuple[Tensor, ...] = ()

    def compare(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Add up what R² needs."""
        if before.dim() < 2 or not before.isfinite().all():
            return
        axis = self._axis(before)
        if before.shape[axis] > _COLUMNS:
            return
        a, b = (x.double().movedim(axis, -1).flatten(0, -2) for x in (before, after))
        found = (torch.full((1,), len(a)).double(), a.sum(0), a.square().sum(0), (b - a).square().sum(0))
        self._columns = tuple(map(torch.add, self._columns, found)) if self._columns else found
        for name, values in zip(("count", "sum", "square", "off"), self._columns, strict=True):
            for i, value in enumerate(values.tolist()):
                self.sums[f"{name} {i}"] = value

    def _axis(self, x: Tensor) -> int:
        """The dimension of the columns: the last one of rows of numbers, the channels of maps, classes of scores."""
        if self.role.axis is not None:
            return self.role.axis
        if self.role.anchors is not None:
            return self.role.anchors.dim + 1
        return 1 if x.dim() == 4 or (x.dim() == 3 and x.shape[1] <= 8 < x.shape[2]) else x.dim() - 1

    def judged(self) -> Judged:
        """Return 1 minus the relative distance."""
        measures = {}
        count = self.sums.get("count 0", 0.0)
        columns = sum(name.startswith("sum ") for name in self.sums)
        if count:
            fits = []
            for i in range(columns):
                spread = self.sums[f"square {i}"] - self.sums[f"sum {i}"] ** 2 / count
                # where a column does not vary, R² says nothing
                if spread > TINY * self.sums[f"square {i}"]:
                    fits.append(1 - min(self.sums[f"off {i}"] / spread, 1e6))
            if fits:
                measures = {"R² (mean of columns)": sum(fits) / len(fits), "R² (worst column)": min(fits)}
        meaning = "1 − relative L2 distance of the outputs"
        return Judged("similarity", meaning, 1.0, max(0.0, 1 - self.distance), measures, self.distance)

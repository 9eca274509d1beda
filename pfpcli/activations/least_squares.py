"""Least squares in float64, solved in one of two forms.

`Normal` keeps X'X and X'Y: its size does not depend on the number of rows. `Dual` keeps the rows themselves: it is the
smaller of the two where there are more columns than rows. Both have the same methods.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pfpcli import processes

#: Products of float32 rows are summed in float64 after this many rows.
_CHUNK = 4096


@dataclass
class Normal:
    """The normal equations, X'X and X'Y, for each group of a grouped convolution; the last column of X is one.

    Attributes:
        gram: float64[G, K + 1, K + 1], X'X.
        cross: float64[G, K + 1, O], X'Y.
    """

    gram: Tensor
    cross: Tensor

    @classmethod
    def empty(cls, groups: int, columns: int, outputs: int, device: torch.device) -> Normal:
        """Return the equations of no rows."""
        gram = torch.zeros(groups, columns + 1, columns + 1, dtype=torch.float64, device=device)
        return cls(gram, gram.new_zeros(groups, columns + 1, outputs))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows: x float[G, M, K + 1], y float[G, M, O]."""
        self.gram += summed_product(x, x)
        self.cross += summed_product(x, y)

    def __add__(self, other: Normal) -> Normal:
        return Normal(self.gram + other.gram, self.cross + other.cross)

    @property
    def is_empty(self) -> bool:
        """Whether it has no rows."""
        return not self.gram.any()

    def of_all(self) -> Normal:
        """Return the equations of the rows of all processes."""
        return Normal(processes.total(self.gram), processes.total(self.cross))

    def after(self, weight: Tensor, missed: Iterable[tuple[Tensor, Tensor]]) -> Normal:
        """Return the same rows with new targets, X W + missed.

        Args:
            weight: float64[G, K + 1, O], W.
            missed: all rows of this process once more, x float[G, M, K + 1] and missed float[G, M, O] for them.
        """
        more = torch.zeros_like(weight)
        for x, y in missed:
            more += summed_product(x, y)
        return Normal(self.gram, self.gram @ weight + processes.total(more))

    def loss(self, weight: Tensor) -> Tensor:
        """Return the squared error up to a constant: float64[G]; weight: float64[G, K + 1, O]."""
        return (weight * (self.gram @ weight - 2 * self.cross)).sum((1, 2))

    def errors(
        self, others: Normal, start: Tensor, ridges: Sequence[float | None], *, intercept: bool = True
    ) -> list[float]:
        """Return the squared error on the rows of `others`, up to a constant, of the solution with each ridge."""
        return [float(others.loss(self.solve(start, ridge, intercept=intercept)).sum()) for ridge in ridges]

    def solve(self, start: Tensor, ridge: float | None, *, intercept: bool = True) -> Tensor:
        """Return the W that minimises |X W - Y|^2 + lambda |W - W_0|^2: float64[G, K + 1, O], the intercept last.

        The intercept is not penalised.

        Args:
            start: float64[G, K, O], W_0.
            ridge: lambda, relative to the mean square of the columns of X; None stands for infinity (W = W_0).
            intercept: whether to fit an intercept; otherwise it is 0.
        """
        gram, cross, mean, target = self.gram[:, :-1, :-1], self.cross[:, :-1], self.mean, self.target
        if intercept:
            gram, cross = gram - self.count * mean.mT @ mean, cross - self.count * mean.mT @ target
        weight = start
        if ridge is not None:
            factor, failed = torch.linalg.cholesky_ex(damped(gram, ridge))
            if not failed.any():
                weight = start + torch.cholesky_solve(cross - gram @ start, factor)
        free = target - mean @ weight if intercept else torch.zeros_like(target)
        return torch.cat([weight, free], 1)

    @property
    def count(self) -> Tensor:
        """The number of rows, at least one: float64[G, 1, 1]."""
        return self.gram[:, -1:, -1:].clamp(min=1)

    @property
    def mean(self) -> Tensor:
        """The mean row of X: float64[G, 1, K]."""
        return self.gram[:, -1:, :-1] / self.count

    @property
    def target(self) -> Tensor:
        """The mean row of Y: float64[G, 1, O]."""
        return self.cross[:, -1:] / self.count


@dataclass
class Dual:
    """The rows of X and Y, for problems whose X'X would be too large.

    The minimum of `Normal.solve` is at W = W_0 + X' A, where (XX' + lambda 1) A = Y - X W_0: kernel ridge regression
    with a linear kernel.

    Source: Saunders, Gammerman, Vovk, Ridge Regression Learning Algorithm in Dual Variables, ICML 1998.

    Attributes:
        parts: float64[G, M, K + 1] and float64[G, M, O] each; the last column of X is one.
    """

    parts: list[tuple[Tensor, Tensor]]

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows: x float[G, M, K + 1], y float[G, M, O]."""
        self.parts.append((x.double(), y.double()))

    def __add__(self, other: Dual) -> Dual:
        return Dual([*self.parts, *other.parts])

    @property
    def is_empty(self) -> bool:
        """Whether it has no rows."""
        return not self.parts

    def of_all(self) -> Dual:
        """Return the rows of all processes."""
        return Dual([part for parts in processes.gathered(self.parts) for part in parts])

    def after(self, weight: Tensor, missed: Iterable[tuple[Tensor, Tensor]]) -> Dual:
        """See `Normal.after`."""
        return Dual([(x.double(), x.double() @ weight + y.double()) for x, y in missed]).of_all()

    def errors(
        self, others: Dual, start: Tensor, ridges: Sequence[float | None], *, intercept: bool = True
    ) -> list[float]:
        """Return the squared error on the rows of `others` of the solution with each ridge."""
        x, y, mean, target = self._centred(start, intercept)
        found = torch.cat([x @ (other[..., :-1] - mean).mT for other, _ in others.parts], 2)
        missed = torch.cat([wanted - other[..., :-1] @ start for other, wanted in others.parts], 1) - target
        solved = (self._solved(x, y, ridge) for ridge in ridges)
        return [float((missed - found.mT @ each).square().sum()) for each in solved]

    def solve(self, start: Tensor, ridge: float | None, *, intercept: bool = True) -> Tensor:
        """See `Normal.solve`."""
        x, y, mean, target = self._centred(start, intercept)
        weight = start + x.mT @ self._solved(x, y, ridge)
        free = target + mean @ (start - weight) if intercept else torch.zeros_like(target)
        return torch.cat([weight, free], 1)

    def _centred(self, start: Tensor, intercept: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return X and Y - X W_0, both centred, and their means: float64[G, M or 1, K or O]."""
        x = torch.cat([part[..., :-1] for part, _ in self.parts], 1)
        y = torch.cat([part for _, part in self.parts], 1) - x @ start
        mean, target = x.mean(1, keepdim=True), y.mean(1, keepdim=True)
        if not intercept:
            mean, target = torch.zeros_like(mean), torch.zeros_like(target)
        return x - mean, y - target, mean, target

    @staticmethod
    def _solved(x: Tensor, y: Tensor, ridge: float | None) -> Tensor:
        """Return A, float64[G, M, O]; it is 0 where the weights do not change."""
        if ridge is None:
            return torch.zeros_like(y)
        kernel = x @ x.mT
        # lambda is relative to the mean of the diagonal of X'X; the diagonals of X'X and XX' have the same sum
        factor, failed = torch.linalg.cholesky_ex(damped(kernel, ridge * x.shape[1] / x.shape[2]))
        return torch.zeros_like(y) if failed.any() else torch.cholesky_solve(y, factor)


def damped(gram: Tensor, ridge: float) -> Tensor:
    """Return X'X + lambda 1, float64[..., K, K]; ridge: lambda relative to the mean of the diagonal of X'X."""
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    # the mean is 0 where all columns are 0: lambda is absolute then
    size = torch.where(size > 0, size, torch.ones_like(size))
    return gram + ridge * size * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)


def summed_product(a: Tensor, b: Tensor) -> Tensor:
    """Return A'B in float64: products of a few thousand rows each in the type of the rows, their sum in float64.

    Args:
        a: float[G, M, K].
        b: float[G, M, L].
    """
    pairs = zip(a.split(_CHUNK, 1), b.split(_CHUNK, 1), strict=True)
    found = a.new_zeros(a.shape[0], a.shape[2], b.shape[2], dtype=torch.float64)
    for some, others in pairs:
        found += some.mT @ others
    return found


def draw_patches(there: int, wanted: int, random: torch.Generator) -> Tensor:
    """Return at most `wanted` of the patches of a layer, in ascending order: int64[p]; random: draws them."""
    return torch.randperm(there, generator=random)[:wanted].sort().values if wanted < there else torch.arange(there)

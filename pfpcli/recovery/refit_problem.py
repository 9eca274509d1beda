"""Refit problem: the least squares problem of one weight, and the choice of its ridge."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import torch
from torch import Tensor

from pfpcli.activations.least_squares import Dual, Normal

#: One image in CHECKED only judges the choices of lambda.
CHECKED = 4


@dataclass(frozen=True)
class Effort:
    """How carefully a layer is solved. Positions beyond its rows are left out at random.

    Attributes:
        rows: the largest number of rows, unless `least` asks for more.
        numbers: the largest number of numbers in these rows, unless `least` asks for more.
        least: the rows for each column that there may always be.
        widest: a layer with more columns is solved by its rows, of which it holds as many numbers as X'X of this size
            has.
        ridges: the choices of lambda, relative to the mean square of the layer's input.
        clipped: how often a layer with a clipped result is solved again.
    """

    rows: int
    numbers: int
    least: int
    widest: int
    ridges: tuple[float, ...]
    clipped: int


#: A refit that is to stay, and one that only tells plans apart.
FULL = Effort(1 << 16, 1 << 26, 8, 8192, ridges=(1e-4, 1e-3, 1e-2, 1e-1, 1.0), clipped=2)
COARSE = replace(FULL, rows=2048, numbers=1 << 22, least=2, widest=2048, clipped=1)
_Sums = TypeVar("_Sums", Normal, Dual)


@dataclass
class Problem(Generic[_Sums]):
    """The least squares problem of one weight. Rows are added to it batch by batch.

    Attributes:
        start: float64[G, K, O], the weights before the refit.
        positions: the largest number of positions of each image.
        fitted: the rows that the weights are fitted to.
        checked: the rows that judge the choices of lambda.
    """

    start: Tensor
    positions: int
    fitted: _Sums
    checked: _Sums

    def add(self, first: int, images: int, x: Tensor, y: Tensor) -> None:
        """Add the rows of a batch.

        Args:
            first: the index of the first image among all images.
            images: n, the number of images.
            x: float[G, n * p, K + 1].
            y: float[G, n * p, O].
        """
        is_checked = torch.arange(first, first + images) % CHECKED == CHECKED - 1
        for sums, wanted in ((self.fitted, ~is_checked), (self.checked, is_checked)):
            if wanted.any():
                sums.add(*(each.unflatten(1, (images, -1))[:, wanted].flatten(1, 2) for each in (x, y)))

    @property
    def both(self) -> _Sums:
        """All rows of all processes."""
        return self.fitted.of_all() + self.checked.of_all()

    def ridge(self, ridges: tuple[float, ...], *, intercept: bool) -> float | None:
        """The lambda that predicts the checked rows best; None keeps the weights. It is the same in all processes."""
        fitted, checked = self.fitted.of_all(), self.checked.of_all()
        if not ridges or checked.is_empty or fitted.is_empty:
            return None
        choices: list[float | None] = [None, *ridges]
        errors = fitted.errors(checked, self.start, choices, intercept=intercept)
        return choices[errors.index(min(errors))]


def open_problem(matrix: Tensor, images: int, positions: int, effort: Effort) -> Problem[Normal] | Problem[Dual]:
    """A problem without rows.

    Args:
        matrix: float64[G, O, J, R], the weights.
        images: the number of images whose rows will be added.
        positions: the number of positions at which the layer reads each image.
        effort: how many rows.
    """
    start = matrix.permute(0, 2, 3, 1).flatten(1, 2)
    groups, columns, outputs = start.shape
    most = max(effort.least * columns, min(effort.rows, effort.numbers // (groups * columns)))
    if columns > effort.widest:
        most = effort.widest**2 // columns
    positions = max(1, min(positions, -(-most // max(1, images))))
    if columns > effort.widest or images * positions < columns:
        return Problem(start, positions, Dual([]), Dual([]))
    return Problem(start, positions, *(Normal.empty(groups, columns, outputs, matrix.device) for _ in range(2)))

"""Refit problem: the least squares problem of one weight, and the choice of its ridge."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pfpcli.activations.least_squares import Normals, Rows
from pfpcli.activations.ridge import best_ridge

#: One image in CHECKED only judges the choices of lambda.
CHECKED = 4


@dataclass(frozen=True)
class Effort:
    """How carefully a layer is solved. Positions beyond its rows are left out at random.

    Attributes:
        rows: the largest number of rows, unless `least` asks for more.
        least: the rows for each column that there may be.
        numbers: the largest number of numbers that these rows hold, beyond `_LEAST` rows for each column.
        widest: a layer with more columns is solved by its rows, of which it holds as many numbers as X'X of this size
            has.
        ridges: the choices of lambda, relative to the mean square of the layer's input.
        clipped: how often a layer with a clipped result is solved again.
        type: the numbers to solve in.
    """

    rows: int
    least: int
    numbers: int
    widest: int
    ridges: tuple[float, ...]
    clipped: int
    type: torch.dtype


#: The rows for each column that every effort may take.
_LEAST = 2
#: A refit that is to stay, and one that only tells plans apart.
_RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
FULL = Effort(1 << 16, 8, 1 << 25, 8192, ridges=_RIDGES, clipped=2, type=torch.float64)
COARSE = replace(FULL, rows=2048, least=2, numbers=1 << 23, widest=2048, clipped=1, type=torch.float32)


@dataclass(frozen=True)
class Problem:
    """The least squares problem of one weight.

    Attributes:
        rows: the problem; rows are added to it batch by batch.
        positions: the largest number of positions of each image.
    """

    rows: Normals | Rows
    positions: int

    def add(self, first: int, images: int, x: Tensor, y: Tensor) -> None:
        """Add the rows of a batch; one image in `CHECKED` is held out to judge the choices of lambda.

        Args:
            first: the index of the first image among all images.
            images: n, the number of images.
            x: float[G, n * p, K + 1].
            y: float[G, n * p, O].
        """
        held = torch.arange(first, first + images, device=x.device) % CHECKED == CHECKED - 1
        self.rows.add(x, y, held.repeat_interleave(x.shape[1] // images))

    def ridge(self, ridges: tuple[float, ...]) -> float | None:
        """The lambda that predicts the held-out rows best; None keeps the weights. It is the same in all processes."""
        return best_ridge(ridges, self.rows.judge()) if ridges else None


def open_problem(
    matrix: Tensor, images: int, positions: int, effort: Effort, *, intercept: bool, is_final: bool = True
) -> Problem:
    """A problem without rows.

    Args:
        matrix: float64[G, O, J, R], the weights.
        images: the number of images whose rows will be added.
        positions: the number of positions at which the layer reads each image.
        effort: how many rows.
        intercept: whether to fit an intercept.
        is_final: whether no rows are added after a solution.
    """
    start = matrix.permute(0, 2, 3, 1).flatten(1, 2).to(effort.type)
    groups, columns, outputs = start.shape
    held = max(_LEAST * columns, effort.numbers // (groups * (columns + outputs)))
    most = min(max(effort.least * columns, effort.rows), held)
    if columns > effort.widest:
        most = effort.widest**2 // columns
    positions = max(1, min(positions, -(-most // max(1, images))))
    if columns > effort.widest or images * positions < columns:
        return Problem(Rows(start, intercept), positions)
    return Problem(Normals.of(start, intercept=intercept, is_final=is_final), positions)

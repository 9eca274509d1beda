"""Nested fits: the least squares fits of a layer to fewer and fewer of its columns.

The columns are put in the order in which they are kept, so those of each width come first. The Cholesky factor of a
width is then the corner of the factor of all columns, and the first half of the solution is the beginning of that for
all columns. The fits only tell widths apart, so they are solved in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pfpcli.activations.centred import Centred
from pfpcli.activations.ridge import Judge, factor, mean_square


@dataclass(frozen=True)
class NestedFits:
    """One group of a layer, whose outputs X W are fitted with some columns of X alone, at several widths.

    Attributes:
        order: int64[K], the columns in the order in which they are kept.
        counts: the number of columns that each width keeps, in descending order.
        weight: float32[K, O], W, its rows in that order.
        first, second: the rows of X of one half of the images each.
    """

    order: Tensor
    counts: list[int]
    weight: Tensor
    first: _Ordered
    second: _Ordered

    @classmethod
    def of(cls, halves: tuple[Centred, Centred], weight: Tensor, kept: Tensor, group: int) -> NestedFits:
        """Return the fits of one group.

        Args:
            halves: the rows of the images of each half.
            weight: float64[K, O], W.
            kept: bool[w, K], the columns that each width keeps; each keeps all those of the next one.
            group: the index of the group in the rows.
        """
        order = kept.sum(0).argsort(descending=True, stable=True)
        ordered = weight[order].float()
        first, second = (_Ordered.of(half.ordered(group, order), ordered) for half in halves)
        return cls(order, kept.sum(1).tolist(), ordered, first, second)

    def judge(self, width: int) -> Judge:
        """Return what tells the error of a width, as in `errors`, for every lambda; width: its index."""
        return lambda ridge: self._errors([self.counts[width]], ridge)[0]

    def errors(self, ridge: float | None) -> list[float]:
        """Return the squared error of each width on the second half, of a fit to the first half.

        Args:
            ridge: lambda, relative to the mean square of the columns; None keeps the weights.
        """
        return self._errors(self.counts, ridge)

    def _errors(self, counts: list[int], ridge: float | None) -> list[float]:
        solved = self.first.solved(self.weight, counts, ridge)
        return [self.second.error(self.first.mean, self.weight, each) for each in solved]

    @property
    def energy(self) -> float:
        """The squared norm of the outputs of the second half, less their mean."""
        return self.second.energy

    def fitted(self, ridge: float | None) -> tuple[list[float], Tensor]:
        """Return the errors of all widths, and their fits to both halves.

        Returns:
            (errors; float32[w, K + 1, O], the fits: 0 for dropped columns, the intercept last).
        """
        return self.errors(ridge), self._solutions(ridge)

    def _solutions(self, ridge: float | None) -> Tensor:
        both = _Ordered.of(self.first.rows.joined(self.second.rows), self.weight)
        found = self.weight.new_zeros(len(self.counts), len(self.order) + 1, self.weight.shape[1])
        target = both.mean @ self.weight
        for into, solved in zip(found, both.solved(self.weight, self.counts, ridge), strict=True):
            count = len(solved)
            into[self.order[:count]] = solved
            into[-1] = target - both.mean[:count] @ solved
        return found


@dataclass(frozen=True)
class _Ordered:
    """Rows whose columns are in the order in which they are kept, with the outputs of a layer.

    Attributes:
        rows: the rows, of one group.
        cross: float32[K, O], X'X W.
        energy: |X W|^2.
    """

    rows: Centred
    cross: Tensor
    energy: float

    @classmethod
    def of(cls, rows: Centred, weight: Tensor) -> _Ordered:
        """Return it for some rows; weight: float32[K, O], W in their order."""
        cross = rows.gram[0] @ weight
        return cls(rows, cross, float((weight * cross).sum()))

    @property
    def count(self) -> float:
        """The number of rows."""
        return float(self.rows.count)

    @property
    def mean(self) -> Tensor:
        """float32[K], the mean of the rows."""
        return self.rows.mean[0].float()

    @property
    def gram(self) -> Tensor:
        """float32[K, K], X'X of the rows less their mean."""
        return self.rows.gram[0]

    def solved(self, weight: Tensor, counts: Sequence[int], ridge: float | None) -> list[Tensor]:
        """Return the weights of the first columns that fit the outputs of all: float32[count, O] for each count.

        They minimise |X_k S - X W|^2 + lambda |S - W_k|^2, where k stands for the first columns.
        """
        if not counts:
            return []
        most, size = max(counts), mean_square(self.gram)
        lower = factor(self.gram[:most, :most], ridge, size)
        if ridge is None or lower is None:
            return [weight[:count] for count in counts]
        half = torch.linalg.solve_triangular(lower, self.cross[:most] + ridge * size * weight[:most], upper=False)
        return [torch.linalg.solve_triangular(lower[:count, :count].mT, half[:count], upper=True) for count in counts]

    def error(self, mean: Tensor, weight: Tensor, solved: Tensor) -> float:
        """Return the squared error on these rows of weights that fit other rows.

        Args:
            mean: float32[K], of the other rows, from which the intercept comes.
            weight: float32[K, O], W.
            solved: float32[count, O], the weights of the first columns.
        """
        count, apart = len(solved), self.mean - mean
        offset = apart[:count] @ solved - apart @ weight
        own = float((solved * (self.gram[:count, :count] @ solved)).sum())
        crossed = float((solved * self.cross[:count]).sum())
        return max(0.0, own - 2 * crossed + self.energy) + self.count * float(offset.square().sum())

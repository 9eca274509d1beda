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

from pfpcli.activations.normal_equations import Normal
from pfpcli.activations.ridge import Judge, factor, mean_square

#: Rows of X'X that are put in order together.
_ROWS = 512


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
    def of(cls, halves: tuple[Normal, Normal], weight: Tensor, kept: Tensor, group: int) -> NestedFits:
        """Return the fits of one group.

        Args:
            halves: the equations of the images of each half; their targets are not used.
            weight: float64[K, O], W.
            kept: bool[w, K], the columns that each width keeps; each keeps all those of the next one.
            group: the index of the group in the equations.
        """
        order = kept.sum(0).argsort(descending=True, stable=True)
        ordered = weight[order].float()
        first, second = (_Ordered.of(half, group, order, ordered) for half in halves)
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
        both = self.first.joined(self.second, self.weight)
        found = self.weight.new_zeros(len(self.counts), len(self.order) + 1, self.weight.shape[1])
        target = both.mean @ self.weight
        for into, solved in zip(found, both.solved(self.weight, self.counts, ridge), strict=True):
            count = len(solved)
            into[self.order[:count]] = solved
            into[-1] = target - both.mean[:count] @ solved
        return found


@dataclass(frozen=True)
class _Ordered:
    """Centred rows whose columns are in the order in which they are kept.

    Attributes:
        count: the number of rows.
        mean: float32[K], their mean before they were centred.
        gram: float32[K, K], X'X.
        cross: float32[K, O], X'X W.
        energy: |X W|^2.
    """

    count: float
    mean: Tensor
    gram: Tensor
    cross: Tensor
    energy: float

    @classmethod
    def of(cls, normal: Normal, group: int, order: Tensor, weight: Tensor) -> _Ordered:
        """Return the rows of one group of some equations; weight: float32[K, O], in the order."""
        count = float(normal.gram[group, -1, -1])  # 0 for no rows
        mean = normal.mean[group, 0, order]
        gram = weight.new_empty(len(order), len(order))
        # some rows at a time: X'X can be the largest tensor of a run, and float64 is needed only until it is centred
        for some, of_some, into in zip(order.split(_ROWS), mean.split(_ROWS), gram.split(_ROWS), strict=True):
            into.copy_(normal.gram[group][some[:, None], order].addr_(of_some, mean, alpha=-count))
        return cls._with_targets(count, mean.float(), gram, weight)

    @classmethod
    def _with_targets(cls, count: float, mean: Tensor, gram: Tensor, weight: Tensor) -> _Ordered:
        cross = gram @ weight
        return cls(count, mean, gram, cross, float((weight * cross).sum()))

    def joined(self, other: _Ordered, weight: Tensor) -> _Ordered:
        """Return these rows and others together, with one mean; weight: float32[K, O]."""
        count, apart = self.count + other.count, self.mean - other.mean
        mean = (self.count * self.mean + other.count * other.mean) / count
        gram = torch.addr(self.gram + other.gram, apart, apart, alpha=self.count * other.count / count)
        return self._with_targets(count, mean, gram, weight)

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

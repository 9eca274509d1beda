"""Row fits: the fits of `NestedFits` from the rows of X themselves, for a layer with more columns than rows.

With S = W_k + X_k' A, where k stands for the first columns and d for the dropped ones,

    min over S of |X_k S - X W|^2 + lambda |S - W_k|^2    is solved by    (X_k X_k' + lambda 1) A = X_d W_d

so only X_k X_k', which has the size of the rows, is factored. The X_k X_k' of a width is that of the width below it and
the product of the columns between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.centred import Centred
from pfpcli.activations.normal_equations import Sums
from pfpcli.activations.ridge import Judge, factor, solve_factored
from pfpcli.activations.row_products import add_square


@dataclass(frozen=True)
class StoredRows:
    """The rows of what a layer reads, as they are.

    Attributes:
        x: float32[G, M, K + 1], for each group of a grouped convolution; the last column is one.
    """

    x: Tensor

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows."""
        return not self.x.shape[1]

    @property
    def centred(self) -> Centred:
        """X'X of the rows less their mean."""
        sums = Sums.empty(len(self.x), self.x.shape[2] - 1, 0, self.x.device)
        sums.add(self.x, self.x[..., :0])
        return Centred.of(sums.finished())

    def of_all(self) -> StoredRows:
        """Return the rows of all processes."""
        return StoredRows(torch.cat([x.to(self.x) for x in processes.gathered(self.x)], 1))


@dataclass(frozen=True)
class RowFits:
    """One group of a layer, whose outputs X W are fitted with some columns of X alone, at several widths.

    Attributes:
        order: int64[K], the columns in the order in which they are kept.
        counts: the number of columns that each width keeps, in descending order.
        weight: float32[K, O], W, its rows in that order.
        mean: float32[K], the mean row of X.
        rows: float32[n, K], X less its mean; the rows of the first half of the images come first.
        first: the number of rows of the first half.
    """

    order: Tensor
    counts: list[int]
    weight: Tensor
    mean: Tensor
    rows: Tensor
    first: int

    @classmethod
    def of(cls, halves: tuple[StoredRows, StoredRows], weight: Tensor, kept: Tensor, group: int) -> RowFits:
        """Return the fits of one group; see `NestedFits.of`, the halves are the rows themselves."""
        order = kept.sum(0).argsort(descending=True, stable=True)
        x = torch.cat([half.x[group] for half in halves])[:, order]
        mean = x.double().mean(0).float()
        return cls(order, kept.sum(1).tolist(), weight[order].float(), mean, x - mean, halves[0].x.shape[1])

    @property
    def energy(self) -> float:
        """The squared norm of the outputs of the second half, less their mean."""
        made = self.rows[self.first :] @ self.weight
        return float((made - made.mean(0)).square().sum())

    def judge(self, width: int) -> Judge:
        """Return what tells the error of a width; see `NestedFits.judge`."""
        [(_, products, missed)] = self._cut([self.counts[width]])
        return lambda ridge: self._error(products, missed, ridge)

    def errors(self, ridge: float | None) -> list[float]:
        """Return the squared error of each width on the second half; see `NestedFits.errors`."""
        return [self._error(products, missed, ridge) for _, products, missed in self._cut(self.counts)][::-1]

    def fitted(self, ridge: float | None) -> tuple[list[float], Tensor]:
        """Return the errors and the fits of all widths; see `NestedFits.fitted`."""
        found = self.weight.new_zeros(len(self.counts), len(self.order) + 1, self.weight.shape[1])
        target, size, errors = self.mean @ self.weight, self._size(self.rows), []
        for i, (count, products, missed) in enumerate(self._cut(self.counts), 1):
            errors.append(self._error(products, missed, ridge))
            fit = self.weight[:count].clone()
            lower = factor(products, ridge, size)
            if lower is not None:
                fit += self.rows[:, :count].T @ solve_factored(lower, missed)
            found[-i][self.order[:count]] = fit
            found[-i][-1] = target - self.mean[:count] @ fit
        return errors[::-1], found

    def _cut(self, counts: list[int]) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield each number of kept columns in ascending order, with X_k X_k' and X_d W_d.

        They are float32[n, n] and float32[n, O], and change with the next width.
        """
        products = self.rows.new_zeros(len(self.rows), len(self.rows))
        missed, start = self.rows @ self.weight, 0
        for count in reversed(counts):
            some = self.rows[:, start:count]
            add_square(products[None], some.T[None])
            missed.addmm_(some, self.weight[start:count], alpha=-1)
            start = count
            yield count, products, missed

    def _error(self, products: Tensor, missed: Tensor, ridge: float | None) -> float:
        """Return the squared error on the second half of a fit to the first half, whose mean both take."""
        first = self.first
        if first in (0, len(self.rows)):
            return 0.0
        means = products[:, :first].mean(1, keepdim=True)
        centred = products[:, :first] - means - means[:first].T + means[:first].mean()
        missed = missed - missed[:first].mean(0)
        lower = factor(centred[:first], ridge, self._size(self.rows[:first]))
        left = missed[first:]
        if lower is not None:
            left = left - centred[first:] @ solve_factored(lower, missed[:first])
        return float(left.square().sum())

    def _size(self, rows: Tensor) -> Tensor:
        """Return the mean square of the columns of some rows less their mean, float32[1]; 1 where all of them are 0."""
        size = (rows - rows.mean(0)).square().sum().view(1) / rows.shape[1]
        return torch.where(size > 0, size, torch.ones_like(size))

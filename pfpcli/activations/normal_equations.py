"""Normal equations: X'X and X'Y of rows that come in batches."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.row_products import CHUNK, add_square, summed_product

#: The most numbers of rows that wait.
_WAITING = 1 << 23


@dataclass(frozen=True)
class Normal:
    """The normal equations, X'X and X'Y, for each group of a grouped convolution; the last column of X is one.

    Attributes:
        gram: float[G, K + 1, K + 1], X'X.
        cross: float[G, K + 1, O], X'Y.
    """

    gram: Tensor
    cross: Tensor

    def __add__(self, other: Normal) -> Normal:
        return Normal(self.gram + other.gram, self.cross + other.cross)

    @property
    def is_empty(self) -> bool:
        """Whether it has no rows."""
        return not self.gram[:, -1, -1].any()

    def of_all(self) -> Normal:
        """Return the equations of the rows of all processes."""
        return Normal(processes.total(self.gram), processes.total(self.cross))

    def to(self, like: Tensor) -> Normal:
        """Return the equations in the type of a tensor."""
        return Normal(self.gram.to(like), self.cross.to(like))

    def loss(self, weight: Tensor) -> float:
        """Return the squared error up to a constant; weight: float64[G, K + 1, O]."""
        return float((weight * (self.gram @ weight - 2 * self.cross)).sum())

    @property
    def count(self) -> Tensor:
        """The number of rows, at least one: float[G, 1, 1]."""
        return self.gram[:, -1:, -1:].clamp(min=1)

    @property
    def mean(self) -> Tensor:
        """The mean row of X: float[G, 1, K]."""
        return self.gram[:, -1:, :-1] / self.count

    @property
    def target(self) -> Tensor:
        """The mean row of Y: float[G, 1, O]."""
        return self.cross[:, -1:] / self.count


@dataclass
class Sums:
    """The normal equations of rows that come in batches.

    Rows wait until there are many: to add X'X of a few rows takes longer than to compute it.

    Attributes:
        normal: of the rows that do not wait.
        waiting: rows, x and y each.
    """

    normal: Normal
    waiting: list[tuple[Tensor, Tensor]] = field(default_factory=list, repr=False)

    @classmethod
    def empty(cls, groups: int, columns: int, outputs: int, device: torch.device) -> Sums:
        """Return the equations of no rows."""
        gram = torch.zeros(groups, columns + 1, columns + 1, dtype=torch.float64, device=device)
        return cls(Normal(gram, gram.new_zeros(groups, columns + 1, outputs)))

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add rows: x float[G, M, K + 1], y float[G, M, O]; O may be 0 if the targets are not needed."""
        self.waiting.append((x, y))
        rows, numbers = (sum(each.shape[1] for each, _ in self.waiting), sum(each.numel() for each, _ in self.waiting))
        if rows >= CHUNK or numbers >= _WAITING:
            self._add_waiting()

    def finished(self) -> Normal:
        """Return the equations of all rows so far."""
        if self.waiting:
            self._add_waiting()
        return self.normal

    def _add_waiting(self) -> None:
        x, y = (torch.cat(each, 1) for each in zip(*self.waiting, strict=True))
        self.waiting = []
        gram, cross = self.normal.gram, self.normal.cross
        read, ones = x[..., :-1], x[..., -1:]
        # float32 products would round away how a column varies that is far from 0, so its mean is added afterwards
        mean = (ones.mT @ read) / ones.square().sum(1, keepdim=True).clamp(min=1)
        read.addcmul_(ones, mean, value=-1)
        products = summed_product(x, y)
        mean, left, count = mean.double(), summed_product(read, ones), summed_product(ones, ones)
        whole = left + mean.mT * count
        add_square(gram[:, :-1, :-1], read)
        gram[:, :-1, :-1].baddbmm_(torch.cat([mean.mT, whole], 2), torch.cat([left.mT, mean], 1))
        gram[:, :-1, -1:] += whole
        gram[:, -1:, :-1] += whole.mT
        gram[:, -1:, -1:] += count
        cross.add_(products)
        cross[:, :-1].baddbmm_(mean.mT, products[:, -1:])

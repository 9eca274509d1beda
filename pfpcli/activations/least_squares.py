"""Least squares, solved in one of two forms.

`Normals` keeps X'X and X'Y: its size does not depend on the number of rows. `Rows` keeps the rows themselves: it is the
smaller of the two where there are more columns than rows. Both have the same methods. Some rows are held out: they
judge weights that are fitted to the other rows alone. A problem is solved in the type of its first weights.

The last column of the rows stands for the intercept. It is one, or the root of what a row counts if the whole row, with
its targets, is multiplied by that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.normal_equations import Normal, Sums
from pfpcli.activations.ridge import Judge, factor, solve_factored
from pfpcli.activations.row_products import add_square, summed_product


@dataclass
class Normals:
    """A least squares problem as normal equations.

        min over W of |X W - Y|^2 + lambda |W - W_0|^2

    The intercept, the last row of W, is not penalised.

    Attributes:
        start: float[G, K, O], W_0; its type is that of the solutions.
        intercept: whether to fit an intercept; otherwise it is 0.
        fitted, held: of the rows of this process that the weights are fitted to, and of those that are held out.
        is_final: whether no rows are added after a solution.
        whole: what solves the equations of all rows of all processes, with their targets; None until they are solved.
    """

    start: Tensor
    intercept: bool
    fitted: Sums
    held: Sums
    is_final: bool = True
    whole: tuple[_Factored, Tensor, Tensor] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, start: Tensor, *, intercept: bool, is_final: bool = True) -> Normals:
        """Return the problem without rows."""
        groups, columns, outputs = start.shape
        fitted, held = (Sums.empty(groups, columns, outputs, start.device) for _ in range(2))
        return cls(start, intercept, fitted, held, is_final)

    def add(self, x: Tensor, y: Tensor, held: Tensor) -> None:
        """Add rows.

        Args:
            x: float[G, M, K + 1].
            y: float[G, M, O].
            held: bool[M], the rows that are held out.
        """
        self.whole = None
        for sums, wanted in ((self.fitted, ~held), (self.held, held)):
            if wanted.any():
                sums.add(x[:, wanted], y[:, wanted])

    def judge(self) -> Judge | None:
        """Return what tells the squared error on the held-out rows, up to a constant, of the solution with a lambda.

        It comes before `solve`. None if no rows are held out, or if all are.
        """
        assert self.whole is None
        fitted, held = (sums.finished().of_all().to(self.start) for sums in (self.fitted, self.held))
        if fitted.is_empty or held.is_empty:
            return None
        factored, cross, target = _factored(fitted, self.start, intercept=self.intercept)
        return lambda ridge: held.loss(factored.solve(cross, target, ridge))

    def solve(self, ridge: float | None) -> Tensor:
        """Return the solution for all rows: float[G, K + 1, O], the intercept last.

        Args:
            ridge: lambda, relative to the mean square of the columns of X; None stands for infinity (W = W_0).
        """
        if self.whole is None:
            self.whole = self._joined()
        factored, cross, target = self.whole
        return factored.solve(cross, target, ridge)

    def again(self, weight: Tensor, missed: Iterable[tuple[Tensor, Tensor]], ridge: float | None) -> Tensor:
        """Return the solution for the same rows with other targets, X W + missed. It comes after `solve`.

        Args:
            weight: float[G, K + 1, O], W.
            missed: all rows of this process once more, in their order: x float[G, M, K + 1] and missed float[G, M, O].
            ridge: as for `solve`.
        """
        assert self.whole is not None
        factored, _, _ = self.whole
        more = torch.zeros_like(weight, dtype=torch.float64)
        for x, y in missed:
            more += summed_product(x, y)
        more = processes.total(more).to(weight)
        target = factored.mean @ weight[:, :-1] + weight[:, -1:] + more[:, -1:] / factored.count
        cross = factored.gram @ weight[:, :-1] + more[:, :-1]
        if self.intercept:
            cross -= factored.mean.mT @ more[:, -1:]
        else:
            cross += (factored.count * factored.mean.mT) @ weight[:, -1:]
        return factored.solve(cross, target, ridge)

    def _joined(self) -> tuple[_Factored, Tensor, Tensor]:
        fitted, held = self.fitted.finished().of_all(), self.held.finished().of_all()
        if not self.is_final:
            return _factored((fitted + held).to(self.start), self.start, intercept=self.intercept)
        # these are the largest tensors of a recovery: they are added and centred in place, and one is freed
        fitted.gram.add_(held.gram)
        normal = Normal(fitted.gram, fitted.cross + held.cross)
        self.held = self.fitted
        del held
        return _factored(normal.to(self.start), self.start, intercept=self.intercept, in_place=True)


@dataclass
class _Factored:
    """X'X, centred once, and factored once for each lambda.

    Attributes:
        start: float[G, K, O], W_0.
        intercept: whether to fit an intercept.
        count: float[G, 1, 1], the number of rows.
        mean: float[G, 1, K], the mean row of X.
        gram: float[G, K, K], X'X, of the columns less their means if there is an intercept.
        started: float[G, K, O], X'X W_0.
        last: the last lambda, and its `factor`.
    """

    start: Tensor
    intercept: bool
    count: Tensor
    mean: Tensor
    gram: Tensor
    started: Tensor
    last: tuple[float | None, Tensor | None] = (None, None)

    def solve(self, cross: Tensor, target: Tensor, ridge: float | None) -> Tensor:
        """Return the solution, see `Normals.solve`.

        Args:
            cross: float[G, K, O], X'Y, of the columns less their means if there is an intercept.
            target: float[G, 1, O], the mean row of Y.
            ridge: as for `Normals.solve`.
        """
        if ridge != self.last[0]:
            self.last = (None, None)  # freed before the next one is made
            self.last = ridge, factor(self.gram, ridge)
        weight = self.start
        if self.last[1] is not None:
            weight = weight + solve_factored(self.last[1], cross - self.started)
        free = target - self.mean @ weight if self.intercept else torch.zeros_like(target)
        return torch.cat([weight, free], 1)


def _factored(
    normal: Normal, start: Tensor, *, intercept: bool, in_place: bool = False
) -> tuple[_Factored, Tensor, Tensor]:
    """Return what solves some equations, and their X'Y and mean row of Y as `_Factored.solve` takes them.

    Args:
        normal: the equations.
        start: float[G, K, O], W_0.
        intercept: whether to fit an intercept.
        in_place: whether the equations are needed no more.
    """
    count, mean, target, cross = normal.count, normal.mean, normal.target, normal.cross[:, :-1]
    gram = normal.gram[:, :-1, :-1]
    centre = gram.baddbmm_ if in_place else gram.baddbmm
    gram = centre(mean.mT * count, mean, alpha=-float(intercept))
    if intercept:
        cross = cross - (count * mean.mT) @ target
    return _Factored(start, intercept, count, mean, gram, gram @ start), cross, target


@dataclass
class Rows:
    """A least squares problem as its rows, for problems whose X'X would be too large.

    The minimum of `Normals` is at W = W_0 + X' A, where (XX' + lambda 1) A = Y - X W_0: kernel ridge regression with a
    linear kernel.

    Source: Saunders, Gammerman, Vovk, Ridge Regression Learning Algorithm in Dual Variables, ICML 1998.

    Attributes:
        start: float[G, K, O], W_0; its type is that of the solutions.
        intercept: whether to fit an intercept; otherwise it is 0.
        parts: the rows of this process, float[G, M, K + 1], float[G, M, O] and bool[M] each: x, whose last column is
            one, y, and which rows are held out.
        whole: all rows of all processes and their products; None until they are solved.
    """

    start: Tensor
    intercept: bool
    parts: list[tuple[Tensor, Tensor, Tensor]] = field(default_factory=list)
    whole: _AllRows | None = field(default=None, repr=False)

    def add(self, x: Tensor, y: Tensor, held: Tensor) -> None:
        """See `Normals.add`."""
        self.whole = None
        self.parts.append((x, y, held))

    def judge(self) -> Judge | None:
        """See `Normals.judge`."""
        rows = self._whole()
        held, fitted = rows.held, ~rows.held
        if held.all() or not held.any():
            return None
        products, missed = rows.products, rows.missed
        if self.intercept:
            ones = rows.x[..., -1:].to(products)
            share = ones[:, fitted] / ones[:, fitted].square().sum(1, keepdim=True)
            means = share.mT @ products[:, fitted]
            products = products - ones @ means - (ones @ means).mT + ones @ (means[..., fitted] @ share) @ ones.mT
            missed = missed - ones @ (share.mT @ missed[:, fitted])
        own, across = products[:, fitted][:, :, fitted], products[:, held][:, :, fitted]

        def error(ridge: float | None) -> float:
            solved = _coefficients(own, missed[:, fitted], ridge, self.start.shape[1])[0]
            return float((missed[:, held] - across @ solved).square().sum())

        return error

    def solve(self, ridge: float | None) -> Tensor:
        """See `Normals.solve`."""
        rows = self._whole()
        return self._solution(rows, rows.missed, rows.offset, ridge)

    def again(self, weight: Tensor, missed: Iterable[tuple[Tensor, Tensor]], ridge: float | None) -> Tensor:
        """See `Normals.again`."""
        rows = self._whole()
        more = torch.cat([y for some in processes.gathered([y for _, y in missed]) for y in some], 1)
        change = weight - torch.cat([self.start, torch.zeros_like(weight[:, -1:])], 1)
        lacking = (more.double() + rows.x @ change.to(rows.x)).to(weight)
        offset = _mean(lacking, rows.x) if self.intercept else torch.zeros_like(lacking[:, :1])
        return self._solution(rows, lacking - rows.x[..., -1:].to(offset) @ offset, offset, ridge)

    def _solution(self, rows: _AllRows, missed: Tensor, offset: Tensor, ridge: float | None) -> Tensor:
        """Return the solution for targets X W_0 + missed + offset, the missed part centred."""
        solved, rows.last = _coefficients(rows.products, missed, ridge, self.start.shape[1], rows.last)
        change = summed_product(rows.x[..., :-1], solved.to(rows.x)).to(solved)
        change -= rows.mean.mT @ (rows.x[..., -1:].to(solved).mT @ solved)
        free = offset - rows.mean @ change if self.intercept else torch.zeros_like(offset)
        return torch.cat([self.start + change, free], 1)

    def _whole(self) -> _AllRows:
        if self.whole is None:
            parts = [part for some in processes.gathered(self.parts) for part in some]
            x, y = (torch.cat([part[i] for part in parts], 1) for i in range(2))
            self.whole = _AllRows.of(x, y, torch.cat([held for *_, held in parts]), self.start, self.intercept)
        return self.whole


@dataclass
class _AllRows:
    """All rows of a problem, and the products of each with each.

    Attributes:
        x: float[G, M, K + 1].
        held: bool[M].
        mean: float[G, 1, K], the mean of x; 0 without an intercept.
        products: float[G, M, M], XX' of the rows less their mean, times the last column.
        missed: float[G, M, O], Y - X W_0 less its mean, times the last column.
        offset: float[G, 1, O], that mean; 0 without an intercept.
        last: the last lambda, and the `factor` of the products.
    """

    x: Tensor
    held: Tensor
    mean: Tensor
    products: Tensor
    missed: Tensor
    offset: Tensor
    last: tuple[float | None, Tensor | None] = (None, None)

    @classmethod
    def of(cls, x: Tensor, y: Tensor, held: Tensor, start: Tensor, intercept: bool) -> _AllRows:
        """Return it for some rows."""
        read, ones = x[..., :-1], x[..., -1:]
        missed = y.double() - read @ start.to(x)
        mean, offset = (_mean(each.double(), x) * intercept for each in (read, missed))
        centred = (read - ones @ mean.to(x)).mT
        products = torch.zeros(len(x), x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        add_square(products, centred)
        missed = missed - ones.double() @ offset
        return cls(x, held, mean.to(start), products.to(start), missed.to(start), offset.to(start))


def _mean(values: Tensor, x: Tensor) -> Tensor:
    """The mean of some rows, each as often as it counts: float[G, 1, O].

    Args:
        values: float[G, M, O], multiplied by the last column of x.
        x: float[G, M, K + 1].
    """
    ones = x[..., -1:].to(values)
    return ones.mT @ values / ones.square().sum(1, keepdim=True)


def _coefficients(
    products: Tensor,
    missed: Tensor,
    ridge: float | None,
    columns: int,
    last: tuple[float | None, Tensor | None] = (None, None),
) -> tuple[Tensor, tuple[float | None, Tensor | None]]:
    """Return A, float[G, M, O], which is 0 where the weights do not change, and the lambda with its factor."""
    if ridge != last[0]:
        # lambda is relative to the mean of the diagonal of X'X; the diagonals of X'X and XX' have the same sum
        last = ridge, factor(products, None if ridge is None else ridge * products.shape[1] / columns)
    return torch.zeros_like(missed) if last[1] is None else solve_factored(last[1], missed), last

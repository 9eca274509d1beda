"""Least squares, solved in one of two forms.

`Normals` keeps X'X and X'Y: its size does not depend on the number of rows. `Rows` keeps the rows themselves: it is the
smaller of the two where there are more columns than rows. Both have the same methods. Some rows are held out: they
judge weights that are fitted to the other rows alone.

Products of float32 rows are taken in float32, a few thousand terms at a time, and summed in float64. A problem is then
solved in the type of its first weights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pfpcli import processes

#: Products of float32 numbers are summed in float64 after this many terms.
_CHUNK = 4096
#: The most numbers of rows that wait.
_WAITING = 1 << 24
#: Columns of a symmetric product that are computed together.
_BLOCK = 512


#: The squared error on held-out rows with a lambda, see `Normals.judge`.
Judge = Callable[["float | None"], float]


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
        if rows >= _CHUNK or numbers >= _WAITING:
            self._add_waiting()

    def finished(self) -> Normal:
        """Return the equations of all rows so far."""
        if self.waiting:
            self._add_waiting()
        return self.normal

    def _add_waiting(self) -> None:
        x, y = (torch.cat(each, 1) for each in zip(*self.waiting, strict=True))
        self.waiting = []
        add_square(self.normal.gram, x)
        self.normal.cross.add_(summed_product(x, y))


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
        if self.is_final:  # these are the largest tensors of a recovery
            fitted.gram.add_(held.gram)
            normal = Normal(fitted.gram, fitted.cross + held.cross)
        else:
            normal = fitted + held
        return _factored(normal.to(self.start), self.start, intercept=self.intercept)


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
            weight = weight + torch.cholesky_solve(cross - self.started, self.last[1])
        free = target - self.mean @ weight if self.intercept else torch.zeros_like(target)
        return torch.cat([weight, free], 1)


def _factored(normal: Normal, start: Tensor, *, intercept: bool) -> tuple[_Factored, Tensor, Tensor]:
    """Return what solves some equations, and their X'Y and mean row of Y as `_Factored.solve` takes them."""
    count, mean, target, cross = normal.count, normal.mean, normal.target, normal.cross[:, :-1]
    gram = torch.baddbmm(normal.gram[:, :-1, :-1], mean.mT * count, mean, alpha=-float(intercept))
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
    whole: _Kernel | None = field(default=None, repr=False)

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
        kernel, missed = rows.kernel, rows.missed
        if self.intercept:
            means = kernel[:, fitted].mean(1, keepdim=True)
            kernel = kernel - means - means.mT + means[..., fitted].mean(2, keepdim=True)
            missed = missed - missed[:, fitted].mean(1, keepdim=True)
        own, across = kernel[:, fitted][:, :, fitted], kernel[:, held][:, :, fitted]

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
        offset = lacking.mean(1, keepdim=True) if self.intercept else torch.zeros_like(lacking[:, :1])
        return self._solution(rows, lacking - offset, offset, ridge)

    def _solution(self, rows: _Kernel, missed: Tensor, offset: Tensor, ridge: float | None) -> Tensor:
        """Return the solution for targets X W_0 + missed + offset, the missed part centred."""
        solved, rows.last = _coefficients(rows.kernel, missed, ridge, self.start.shape[1], rows.last)
        change = summed_product(rows.x[..., :-1], solved.to(rows.x)).to(solved)
        change -= rows.mean.mT @ solved.sum(1, keepdim=True)
        free = offset - rows.mean @ change if self.intercept else torch.zeros_like(offset)
        return torch.cat([self.start + change, free], 1)

    def _whole(self) -> _Kernel:
        if self.whole is None:
            parts = [part for some in processes.gathered(self.parts) for part in some]
            x, y = (torch.cat([part[i] for part in parts], 1) for i in range(2))
            self.whole = _Kernel.of(x, y, torch.cat([held for *_, held in parts]), self.start, self.intercept)
        return self.whole


@dataclass
class _Kernel:
    """All rows of a problem, and the products of each with each.

    Attributes:
        x: float[G, M, K + 1].
        held: bool[M].
        mean: float[G, 1, K], the mean of x; 0 without an intercept.
        kernel: float[G, M, M], XX' of the rows less their mean.
        missed: float[G, M, O], Y - X W_0 less its mean.
        offset: float[G, 1, O], that mean; 0 without an intercept.
        last: the last lambda, and the `factor` of the kernel.
    """

    x: Tensor
    held: Tensor
    mean: Tensor
    kernel: Tensor
    missed: Tensor
    offset: Tensor
    last: tuple[float | None, Tensor | None] = (None, None)

    @classmethod
    def of(cls, x: Tensor, y: Tensor, held: Tensor, start: Tensor, intercept: bool) -> _Kernel:
        """Return it for some rows."""
        read = x[..., :-1]
        missed = y.double() - read @ start.to(x)
        mean, offset = (each.double().mean(1, keepdim=True) * intercept for each in (read, missed))
        centred = (read - mean.to(x)).mT
        kernel = torch.zeros(len(x), x.shape[1], x.shape[1], dtype=torch.float64, device=x.device)
        add_square(kernel, centred)
        return cls(x, held, mean.to(start), kernel.to(start), (missed - offset).to(start), offset.to(start))


def _coefficients(
    kernel: Tensor,
    missed: Tensor,
    ridge: float | None,
    columns: int,
    last: tuple[float | None, Tensor | None] = (None, None),
) -> tuple[Tensor, tuple[float | None, Tensor | None]]:
    """Return A, float[G, M, O], which is 0 where the weights do not change, and the lambda with its factor."""
    if ridge != last[0]:
        # lambda is relative to the mean of the diagonal of X'X; the diagonals of X'X and XX' have the same sum
        last = ridge, factor(kernel, None if ridge is None else ridge * kernel.shape[1] / columns)
    return torch.zeros_like(missed) if last[1] is None else torch.cholesky_solve(missed, last[1]), last


def best_ridge(ridges: Sequence[float], judge: Judge | None) -> float | None:
    """Return the lambda with the smallest error; None keeps the weights.

    The error is taken to fall and then to rise as lambda grows, so only lambdas near the best one are tried.

    Args:
        ridges: the choices in ascending order.
        judge: tells the error; None if nothing can be told.
    """
    choices: list[float | None] = [*ridges, None]
    errors: dict[int, float] = {}
    at = len(choices) // 2
    while judge is not None:
        near = [i for i in (at - 1, at, at + 1) if 0 <= i < len(choices)]
        errors.update({i: judge(choices[i]) for i in near if i not in errors})
        best = min(near, key=errors.__getitem__)
        if best == at:
            return choices[at]
        at = best
    return None


def factor(gram: Tensor, ridge: float | None, size: Tensor | None = None) -> Tensor | None:
    """Return the lower Cholesky factor of X'X + lambda 1; None for an infinite lambda, or where there is no factor.

    Args:
        gram: float[..., K, K], X'X.
        ridge: lambda, relative to `size`; None stands for infinity.
        size: see `damped`.
    """
    if ridge is None:
        return None
    found, failed = torch.linalg.cholesky_ex(damped(gram, ridge, size))
    return None if failed.any() else found


def damped(gram: Tensor, ridge: float, size: Tensor | None = None) -> Tensor:
    """Return X'X + lambda 1: float[..., K, K].

    Args:
        gram: float[..., K, K], X'X.
        ridge: lambda, relative to `size`.
        size: float[..., 1]; the mean of the diagonal of X'X by default.
    """
    found = gram.clone()
    size = mean_square(gram) if size is None else size
    found.diagonal(dim1=-2, dim2=-1).add_(ridge * size)
    return found


def mean_square(gram: Tensor) -> Tensor:
    """Return the mean of the diagonal of X'X, float[..., 1]; 1 where all columns are 0, so that lambda is absolute."""
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    return torch.where(size > 0, size, torch.ones_like(size))


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


def add_square(into: Tensor, a: Tensor) -> None:
    """Add A'A as `summed_product` computes it, each product of two columns once.

    Args:
        into: float64[G, K, K].
        a: float[G, M, K].
    """
    columns = a.shape[2]
    for some in a.split(_CHUNK, 1):
        for start in range(0, columns, _BLOCK):
            stop = min(columns, start + _BLOCK)
            product = some[..., start:stop].mT @ some[..., start:]
            into[:, start:stop, start:] += product
            into[:, stop:, start:stop] += product[..., stop - start :].mT


def draw_patches(there: int, wanted: int, random: torch.Generator) -> Tensor:
    """Return at most `wanted` of the patches of a layer, in ascending order: int64[p]; random: draws them."""
    return torch.randperm(there, generator=random)[:wanted].sort().values if wanted < there else torch.arange(there)

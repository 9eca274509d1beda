"""Least squares: a solution by rows equals the solution of the normal equations."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pfpcli.activations.least_squares import Normals, Rows
from pfpcli.activations.normal_equations import Sums
from pfpcli.activations.ridge import best_ridge

NONE_HELD = torch.zeros(1, dtype=torch.bool)


def test_the_interpolative_decomposition_of_the_paper_is_a_least_squares_refit() -> None:
    rows = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 2], [2, 1, 3]], dtype=torch.float64)
    weight = torch.tensor([[5.0], [7.0], [11.0]], dtype=torch.float64)
    assert pivots(rows, 2) == [2, 0]
    problem = Normals.of(weight[[2, 0]][None], intercept=False)
    # the paper keeps the columns 3 and 1 (or 2: they are as long) and comes to T = [[0, 1, 1], [1, -1, 0]]
    ones = rows.new_ones(4, 1)
    problem.add(torch.cat([rows[:, [2, 0]], ones], 1)[None], (rows @ weight)[None], NONE_HELD.expand(4))
    found = problem.solve(1e-14)[0, :2]
    t = torch.tensor([[0, 1, 1], [1, -1, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, torch.tensor([[18.0], [-2.0]], dtype=torch.float64))
    torch.testing.assert_close(found, t @ weight)
    torch.testing.assert_close(rows[:, [2, 0]] @ found, rows @ weight)


def pivots(rows: Tensor, count: int) -> list[int]:
    """The first pivots of a column-pivoted QR: the columns farthest from what the ones before span."""
    left, found = rows.clone(), []
    for _ in range(count):
        found.append(int(left.norm(dim=0).argmax()))
        q = left[:, found[-1]] / left[:, found[-1]].norm()
        left -= torch.outer(q, q @ left)
    return found


@pytest.mark.parametrize("form", [lambda start: Normals.of(start, intercept=True), lambda start: Rows(start, True)])
def test_all_channels_kept_leave_the_weights_as_they_are(form: Callable[[Tensor], Normals | Rows]) -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(9, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    problem = form(weight[None])
    problem.add(torch.cat([rows, rows.new_ones(9, 1)], 1)[None], (rows @ weight)[None], NONE_HELD.expand(9))
    assert problem.judge() is None  # no row is held out
    torch.testing.assert_close(problem.solve(1e-3)[0, :3], weight)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("count", [4, 30])
def test_both_forms_minimise_the_penalised_error(count: int, intercept: bool) -> None:
    generator = torch.Generator().manual_seed(count)

    def random(*sizes: int) -> Tensor:
        return torch.randn(2, *sizes, generator=generator, dtype=torch.float64)

    start = random(6, 3)
    problems = Normals.of(start, intercept=intercept), Rows(start, intercept)
    parts = []
    for _ in range(4):
        x, y = torch.cat([random(count, 6) + 1, torch.ones(2, count, 1).double()], 2), random(count, 3)
        parts.append((x, y, torch.arange(count) % 3 == 1))
        for problem in problems:
            problem.add(*parts[-1])
    x, y, held = (torch.cat([part[i] for part in parts], -2 if i < 2 else 0) for i in range(3))
    judges = [problem.judge() for problem in problems]
    for ridge in (None, 1e-3, 1e-1, 10.0):
        for problem in problems:
            torch.testing.assert_close(problem.solve(ridge), solved(x, y, start, ridge, intercept=intercept))
        fit = solved(x[:, ~held], y[:, ~held], start, ridge, intercept=intercept)
        expected = float((x[:, held] @ fit - y[:, held]).square().sum())
        by_sums, by_rows = (judge(ridge) for judge in judges if judge is not None)
        np.testing.assert_allclose(by_rows, expected)
        np.testing.assert_allclose(by_sums + float(y[:, held].square().sum()), expected)
    weight, more = random(7, 3), [random(count, 3) for _ in parts]
    expected = solved(x, x @ weight + torch.cat(more, 1), start, 1e-2, intercept=intercept)
    for problem in problems:
        problem.solve(1e-2)
        missed = ((part[0], each) for part, each in zip(parts, more, strict=True))
        torch.testing.assert_close(problem.again(weight, missed, 1e-2), expected)


def solved(x: Tensor, y: Tensor, start: Tensor, ridge: float | None, *, intercept: bool) -> Tensor:
    """The minimum of |X W - Y|^2 + lambda |W - W_0|^2 from the definition, by a penalty on W_0 as further rows."""
    read = x[..., :-1]
    if intercept:
        read, mean = read - read.mean(1, keepdim=True), read.mean(1, keepdim=True)
    weight = start
    if ridge is not None:
        size = read.square().sum((1, 2)) / read.shape[2]
        penalty = (ridge * size).sqrt()[:, None, None] * torch.eye(read.shape[2], dtype=read.dtype)
        wanted = y - y.mean(1, keepdim=True) if intercept else y
        weight = torch.linalg.lstsq(torch.cat([read, penalty], 1), torch.cat([wanted, penalty @ start], 1)).solution
    free = y.mean(1, keepdim=True) - mean @ weight if intercept else torch.zeros_like(y[:, :1])
    return torch.cat([weight, free], 1)


@pytest.mark.parametrize("form", [lambda start: Normals.of(start, intercept=True), lambda start: Rows(start, True)])
def test_a_row_times_the_root_of_two_counts_as_two_rows(form: Callable[[Tensor], Normals | Rows]) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y, more, start = (
        torch.randn(1, *size, generator=generator).double() for size in [(8, 6), (8, 2), (8, 2), (5, 2)]
    )
    x[..., -1] = 1
    times = torch.tensor([1, 2, 1, 1, 2, 2, 1, 1])
    held = torch.arange(8) % 4 == 3
    root = times.double().sqrt()[:, None]
    weighed, repeated = form(start), form(start)
    weighed.add(root * x, root * y, held)
    again = [each.repeat_interleave(times, 1) for each in (x, y, more)]
    repeated.add(*again[:2], held.repeat_interleave(times))
    judges = [problem.judge() for problem in (weighed, repeated)]
    errors = [judge(1e-3) - judge(1e-1) for judge in judges if judge is not None]
    np.testing.assert_allclose(errors[0], errors[1])
    torch.testing.assert_close(weighed.solve(1e-2), repeated.solve(1e-2))
    weight = weighed.solve(1e-2)
    torch.testing.assert_close(
        weighed.again(weight, [(root * x, root * more)], 1e-2), repeated.again(weight, [(again[0], again[2])], 1e-2)
    )


def test_a_column_that_varies_little_far_from_zero_is_told_from_a_constant() -> None:
    x = torch.ones(1, 9_000, 3)
    x[..., :2] = 100 + 1e-3 * torch.randn(9_000, 2, generator=torch.Generator().manual_seed(0))
    root = torch.rand(9_000, 1, generator=torch.Generator().manual_seed(1)) + 0.5
    sums = Sums.empty(1, 2, 1, torch.device("cpu"))
    for some in (root * x).split(700, 1):
        sums.add(some, some[..., :1])
    found, exact = sums.finished(), x.double() * root
    spreads = [
        gram[:, :2, :2] - gram[:, :2, 2:] @ gram[:, 2:, :2] / gram[:, 2:, 2:] for gram in (found.gram, exact.mT @ exact)
    ]
    torch.testing.assert_close(spreads[0], spreads[1], rtol=0.05, atol=1e-4)


@pytest.mark.parametrize("columns", [4, 600])
def test_products_of_many_rows_are_exact_to_float32(columns: int) -> None:
    x = torch.randn(1, 9_000, columns + 1, generator=torch.Generator().manual_seed(0)) + 3
    sums = Sums.empty(1, columns, 2, torch.device("cpu"))
    for some in x.split(700, 1):  # fewer rows than wait
        sums.add(some, some[..., :2])
    normal = sums.finished()
    exact = x.double().mT @ x.double()
    torch.testing.assert_close(normal.gram, exact, rtol=4e-6, atol=0)
    torch.testing.assert_close(normal.cross, exact[..., :2], rtol=4e-6, atol=0)


@pytest.mark.parametrize("best", [1e-4, 1e-3, 1e-2, 1e-1, 1.0, None])
def test_the_best_lambda_is_found_without_trying_all(best: float | None) -> None:
    choices = [1e-4, 1e-3, 1e-2, 1e-1, 1.0, None]
    tried = []

    def judge(ridge: float | None) -> float:
        tried.append(ridge)
        return abs(choices.index(ridge) - choices.index(best))

    assert best_ridge(choices[:-1], judge) == best
    assert len(tried) == len(set(tried)) < len(choices) or best in (1e-4, None)
    assert best_ridge(choices[:-1], None) is None

"""Least squares: a solution by rows equals the solution of the normal equations."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pfpcli.activations.least_squares import Dual, Normal


def test_the_interpolative_decomposition_of_the_paper_is_a_least_squares_refit() -> None:
    rows = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 2], [2, 1, 3]], dtype=torch.float64)
    weight = torch.tensor([[5.0], [7.0], [11.0]], dtype=torch.float64)
    assert pivots(rows, 2) == [2, 0]
    normal = Normal.empty(1, 2, 1, torch.device("cpu"))
    # the paper keeps the columns 3 and 1 (or 2: they are as long) and comes to T = [[0, 1, 1], [1, -1, 0]]
    ones = rows.new_zeros(4, 1)
    normal.add(torch.cat([rows[:, [2, 0]], ones], 1)[None], (rows @ weight)[None])
    found = normal.solve(weight[[2, 0]][None], 1e-14, intercept=False)[0, :2]
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


def test_all_channels_kept_leave_the_weights_as_they_are() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(9, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    normal = Normal.empty(1, 3, 2, torch.device("cpu"))
    normal.add(torch.cat([rows, rows.new_ones(9, 1)], 1)[None], (rows @ weight)[None])
    torch.testing.assert_close(normal.solve(weight[None], 1e-3)[0, :3], weight)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("count", [4, 30])
def test_rows_give_what_normal_equations_give(count: int, intercept: bool) -> None:
    generator = torch.Generator().manual_seed(count)

    def random(*sizes: int) -> Tensor:
        return torch.randn(2, *sizes, generator=generator, dtype=torch.float64)

    start, dual, others = random(6, 3), Dual([]), Dual([])
    normal, checked = (Normal.empty(2, 6, 3, torch.device("cpu")) for _ in range(2))
    assert all(each.is_empty for each in (dual, normal))
    for i in range(4):
        x, y = torch.cat([random(count, 6) + 1, torch.ones(2, count, 1).double()], 2), random(count, 3)
        for each in (dual, normal) if i < 3 else (others, checked):
            each.add(x, y)
    ridges = [None, 1e-3, 1e-1, 10.0]
    for ridge in ridges:
        found, expected = (each.solve(start, ridge, intercept=intercept) for each in (dual, normal))
        torch.testing.assert_close(found, expected)
    by_rows = dual.errors(others, start, ridges, intercept=intercept)
    by_sums = normal.errors(checked, start, ridges, intercept=intercept)
    constant = sum(float(y.square().sum()) for _, y in others.parts)
    np.testing.assert_allclose(by_rows, np.add(by_sums, constant))
    missed = [(x, random(count, 3)) for x, _ in dual.parts]
    weight = random(7, 3)
    again = [each.after(weight, missed) for each in (dual, normal)]
    found, expected = (each.solve(start, 1e-2, intercept=intercept) for each in again)
    torch.testing.assert_close(found, expected)

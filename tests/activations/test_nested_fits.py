"""Nested fits: the fits of all widths at once are those of each width alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pfpcli.activations.centred import Centred
from pfpcli.activations.nested_fits import NestedFits
from pfpcli.activations.normal_equations import Sums
from pfpcli.activations.row_fits import RowFits, StoredRows

COLUMNS, OUTPUTS = 12, 5


@pytest.mark.parametrize("ridge", [1e-3, 1e-1, None])
@pytest.mark.parametrize("rows", [9, 60])
@pytest.mark.parametrize("form", ["normal", "stored"])
def test_each_width_is_fitted_as_if_it_were_alone(form: str, rows: int, ridge: float | None) -> None:
    random = torch.Generator().manual_seed(rows)
    weight = torch.randn(COLUMNS, OUTPUTS, generator=random, dtype=torch.float64)
    mixed = torch.randn(COLUMNS, COLUMNS, generator=random)
    first, second = (torch.randn(rows, COLUMNS, generator=random) @ mixed + 2 for _ in range(2))
    order = torch.randperm(COLUMNS, generator=random)
    kept = torch.zeros(3, COLUMNS, dtype=torch.bool)
    for width, count in zip(kept, (10, 6, 3), strict=True):
        width[order[:count]] = True
    fits = (
        NestedFits.of((centred(first), centred(second)), weight, kept, 0)
        if form == "normal"
        else RowFits.of((stored(first), stored(second)), weight, kept, 0)
    )
    errors, solutions = fits.fitted(ridge)
    assert errors == fits.errors(ridge)
    for width, found, error in zip(kept, solutions, errors, strict=True):
        expected = alone(torch.cat([first, second]), weight, width, ridge)
        torch.testing.assert_close(found.double(), expected, rtol=1e-3, atol=1e-3)
        assert not found[:-1][~width].any()
        missed = with_ones(second) @ alone(first, weight, width, ridge) - second.double() @ weight
        torch.testing.assert_close(error, float(missed.square().sum()), rtol=1e-3, atol=1e-3)
    assert [fits.judge(i)(ridge) for i in range(3)] == pytest.approx(errors, rel=1e-3)
    made = second.double() @ weight
    assert fits.energy == pytest.approx(float((made - made.mean(0)).square().sum()), rel=1e-3)


def test_stored_rows_have_the_equations_of_their_rows() -> None:
    rows = torch.randn(9, COLUMNS, generator=torch.Generator().manual_seed(0))
    found = stored(rows).centred
    torch.testing.assert_close(found.gram, centred(rows).gram)
    less = rows.double() - rows.double().mean(0)
    torch.testing.assert_close(found.gram[0], (less.T @ less).float())


@pytest.mark.parametrize("counts", [(9, 60), (9, 0), (0, 60), (0, 0)])
def test_two_lots_of_rows_join_as_if_they_were_one(counts: tuple[int, int]) -> None:
    first, second = (torch.randn(count, COLUMNS, generator=torch.Generator().manual_seed(0)) + 2 for count in counts)
    found, expected = centred(first).joined(centred(second)), centred(torch.cat([first, second]))
    torch.testing.assert_close(found.count, expected.count)
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.gram, expected.gram, rtol=1e-5, atol=1e-4)


def centred(x: Tensor) -> Centred:
    """The equations of some rows."""
    sums = Sums.empty(1, COLUMNS, 0, torch.device("cpu"))
    rows = with_ones(x).float()[None]
    sums.add(rows, rows[..., :0])
    return Centred.of(sums.finished())


def stored(x: Tensor) -> StoredRows:
    """Some rows as they are."""
    return StoredRows(with_ones(x).float()[None])


def alone(x: Tensor, weight: Tensor, width: Tensor, ridge: float | None) -> Tensor:
    """The ridge regression of X W on some columns of X, from the definition; lambda is relative to all columns."""
    x = x.double()
    centred = x - x.mean(0)
    found = torch.zeros(COLUMNS + 1, OUTPUTS, dtype=torch.float64)
    found[:-1][width] = weight[width]
    if ridge is not None:
        some, size = centred[:, width], ridge * centred.square().sum() / COLUMNS
        gram = some.T @ some + size * torch.eye(int(width.sum()), dtype=torch.float64)
        found[:-1][width] = torch.linalg.solve(gram, some.T @ (centred @ weight) + size * weight[width])
    found[-1] = x.mean(0) @ (weight - found[:-1])
    return found


def with_ones(x: Tensor) -> Tensor:
    """Rows whose last column is one."""
    return torch.cat([x.double(), x.new_ones(len(x), 1).double()], 1)

"""The rows of a layer: their errors, how many weights each keeps, and which are drawn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from micro_net import WEIGHT, linear
from pfpcli.scoring import pfp
from pfpcli.sparsity import rows, sipp
from pfpcli.sparsity.row_counts import allocate, optimal_counts
from random_layer import a_layer, most_sensitive, rows_of


def test_how_many_draws_give_a_number_of_distinct_weights() -> None:  # 10
    q = np.array([2, 4, 3]) / 9  # expected distinct: 1, 1.642, 2.0617, ...
    assert [pfp.draws_for(q, distinct) for distinct in range(5)] == [0, 1, 3, 3, 3]
    assert pfp.draws_for(np.array([1.0]), 4) == 1
    skewed = np.random.default_rng(0).pareto(1, 60)
    skewed /= skewed.sum()
    for distinct in range(2, 60):
        draws = pfp.draws_for(skewed, distinct)
        assert pfp.expected_distinct(skewed, draws - 1) < distinct <= pfp.expected_distinct(skewed, draws)


def test_draws_from_equal_weights_are_what_the_search_finds_for_nearly_equal_ones() -> None:
    for n, distinct in ((5, 4), (7, 2), (40, 39), (40, 17)):
        nearly = np.full(n, 1 / n)
        nearly[0] += 1e-12
        uniform = np.append(np.full(n, 1 / n), 0)
        assert pfp.draws_for(uniform, distinct) == pfp.draws_for(nearly, distinct)


def test_the_rows_of_a_layer() -> None:
    s, found = rows_of(linear(torch.tensor([[1.0, 2, 3]])))
    assert found.total.tolist() == [[[1, 1]], [[0, 1]]]
    assert found.present.tolist() == found.live.tolist() == [[[2, 1]], [[0, 2]]]
    assert found.alpha[0, 0, 0] == pfp.log_term(1, 1)
    dead = rows.rows_of(WEIGHT[None, :, :, None], torch.zeros_like(s), 1.0)
    assert dead.present.sum() == 5
    assert dead.live.sum() == 0


def test_the_error_of_drawing_falls_and_has_the_inverse_of_methods_2() -> None:
    count = np.array([1.0, 2, 5, 20, 1e3, 1e6])
    alpha = np.full(6, 500.0)
    error = rows.error_drawn(alpha, count)
    assert (np.diff(error) < 0).all()
    np.testing.assert_allclose(alpha * (3 + 2 * error) / (6 * error**2), count)
    assert rows.error_drawn(alpha[:1], np.array([0])) == np.inf


def problem(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(alpha, leading, most) of some rows."""
    rng = np.random.default_rng(seed)
    most = rng.integers(1, 60, n)
    return 240 * most * rng.random(n), 1 / rng.integers(4, 64, n), most


def test_no_allocation_on_a_fine_grid_is_better() -> None:
    alpha, leading, _ = problem(3, 0)
    most, budget = np.array([3, 9, 20]), 14
    steps = np.linspace(0, budget, 281)[1:]
    grid = np.array([(a, b, budget - a - b) for a, b in itertools.product(steps, steps) if a + b < budget])
    grid = grid[(grid <= most).all(1)]
    best = (rows.error_drawn(np.tile(alpha, (len(grid), 1)), grid) * leading).sum(1).min()
    x = optimal_counts(alpha, leading, most, budget)
    found = (rows.error_drawn(alpha, x) * leading).sum()
    assert best * (1 - 1e-3) <= found <= best
    assert x[0] == 3  # full


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.95, 0.999])
def test_the_conditions_of_an_optimum_hold(share: float) -> None:
    alpha, leading, most = problem(500, 1)
    alpha[:3] *= 1e-9
    alpha[3], most[3] = 0, 0
    budget = int(share * most.sum())
    x = optimal_counts(alpha, leading, most, budget)
    assert (x <= most).all()
    assert x.sum() == pytest.approx(budget, rel=1e-12)
    live = alpha > 0
    at, step = x[live], 1e-5 * x[live]
    higher, lower = (rows.error_drawn(alpha[live], at + d) for d in (step, -step))
    gain = leading[live] * (lower - higher) / (2 * step)
    inner = at < most[live]
    np.testing.assert_allclose(gain[inner], gain[inner].mean(), rtol=1e-5)
    assert (gain[~inner] >= gain[inner].mean() * (1 - 1e-5)).all()


def test_a_budget_is_spent_to_the_last_weight_and_rows_are_rounded_to_a_neighbour() -> None:
    layers = [rows_of(a_layer(groups=g, seed=g))[1] for g in (1, 2)]
    for layer in layers:
        layer.live[0, 0, 0] -= 5  # as if five weights of a row had never mattered
    live, present = (sum(int(getattr(layer, each).sum()) for layer in layers) for each in ("live", "present"))
    for budget in (0, 1, 7, 30, 200, live - 1, live, live + 3, present, present + 9):
        kept = allocate(layers, budget)
        assert sum(int(each.sum()) for each in kept) == min(budget, present)
        for each, layer in zip(kept, layers, strict=True):
            assert each.shape == layer.total.shape
            assert ((each >= 0) & (each <= (layer.live if budget <= live else layer.present))).all()
    x = np.concatenate([each.ravel() for each in allocate(layers, 200)])
    alpha, most = (np.concatenate([getattr(layer, each).ravel() for layer in layers]) for each in ("alpha", "live"))
    leading = np.repeat([1 / 5, 1 / 10], [10, 20])
    assert (abs(x - optimal_counts(alpha, leading, most, 200)) < 1).all()


def test_the_hybrid_form_takes_the_form_with_the_smaller_error() -> None:
    columns = a_layer()
    s, layer = rows_of(columns)
    kept = allocate([layer], 60)[0]
    assert not rows.better_drawn(layer, columns.weight, s, kept).any()  # as in all rows of the authors' code
    small = rows.Rows(layer.total, layer.live, layer.present, 1e-3)
    drawn = rows.better_drawn(small, columns.weight, s, kept)
    assert drawn.any()
    s[:, :, 3:] = 0  # nothing is lost by cutting off what has no sensitivity
    assert not rows.better_drawn(small, columns.weight, s, np.full_like(kept, 12)).any()


def test_the_error_of_cutting_off_is_what_is_not_among_the_largest() -> None:
    columns = linear(torch.tensor([[1.0, 2, 3]]))
    s = sipp.weight_sensitivity(columns, "max")
    one, none = np.ones((2, 1, 2), dtype=np.int64), np.zeros((2, 1, 2), dtype=np.int64)
    assert rows.error_dropped(columns.weight, s, one).tolist() == [[[1.5, 0]], [[0, 0.75]]]
    assert rows.error_dropped(columns.weight, s, none).tolist() == [[[3, 3]], [[0, 3]]]


def test_a_drawn_weight_is_on_average_what_it_was() -> None:  # 9
    columns = a_layer()
    s, layer = rows_of(columns)
    kept = allocate([layer], 60)[0]
    runs, rng = 400, np.random.default_rng(0)
    everywhere = np.ones_like(kept, dtype=bool)
    found = torch.stack(
        [rows.draw_factors(columns.weight, s, kept, everywhere, rng)[0].flatten(1) for _ in range(runs)]
    )
    for sign, o in np.ndindex(2, 5):
        side = (columns.weight[0, o].flatten() > 0) == (sign == 0)
        q = (s[0, o].flatten()[side] / layer.total[sign, 0, o]).double()
        variance = (1 - q) / (pfp.draws_for(q.numpy(), int(kept[sign, 0, o])) * q)
        assert ((found[:, o, side].mean(0) - 1).abs() < 5 * (variance / runs).sqrt()).all()
    spent = (found != 0).sum() / runs
    assert 60 < spent < 66  # not one whole weight too many in any of the ten rows


def test_draws_follow_the_generator_and_cutting_off_does_not() -> None:  # 21
    columns = a_layer()
    s, layer = rows_of(columns)
    kept = allocate([layer], 60)[0]
    drawn = np.ones_like(kept, dtype=bool)

    def found(seed: int) -> Tensor:
        return rows.draw_factors(columns.weight, s, kept, drawn, np.random.default_rng(seed))

    assert torch.equal(found(1), found(1))
    assert not torch.equal(found(1), found(2))
    drawn[:] = False
    assert torch.equal(found(1), found(2))


def test_rows_that_are_not_drawn_keep_their_most_sensitive_weights_as_they_are() -> None:
    columns = a_layer()
    s, layer = rows_of(columns)
    kept = allocate([layer], 60)[0]
    found = rows.draw_factors(columns.weight, s, kept, np.zeros_like(kept, dtype=bool), np.random.default_rng(0))
    assert set(found.unique().tolist()) == {0, 1}
    for sign, side in enumerate((columns.weight > 0, columns.weight < 0)):
        for o in range(5):
            stays = (found[0, o] == 1) & side[0, o]
            assert stays.sum() == kept[sign, 0, o]
            assert s[0, o][stays].min() >= s[0, o][side[0, o] & ~stays].max()


def test_a_budget_for_everything_changes_nothing() -> None:  # 13
    columns = a_layer()
    columns.x[:, :, 0] = 0  # its weights never matter, and stay
    columns.weight[0, 1] = 0
    s, layer = rows_of(columns)
    kept = allocate([layer], int((columns.weight != 0).sum()))[0]
    everywhere = np.ones_like(kept, dtype=bool)
    found = rows.draw_factors(columns.weight, s, kept, everywhere, np.random.default_rng(0))
    assert torch.equal(found * columns.weight, columns.weight.double())
    assert torch.equal(most_sensitive(columns, 140)[1], columns.weight != 0)


def test_a_draw_that_leaves_out_nothing_leaves_the_row_as_it_is() -> None:
    columns = linear(torch.tensor([[1.0, 2]]), torch.tensor([[2.0, 1]]))
    s = sipp.weight_sensitivity(columns, "max")
    kept = np.ones((2, 1, 1), dtype=np.int64)
    # one of two is kept with one draw; three weights of which two are wanted take three draws, at times all different
    assert sorted(rows.draw_factors(columns.weight, s, kept, kept > 0, np.random.default_rng(0)).flatten()) == [0, 2]
    three = linear(torch.tensor([[1.0, 2, 4]]), torch.tensor([[4.0, 2, 1]]))
    s = sipp.weight_sensitivity(three, "max")
    rng = np.random.default_rng(0)
    found = {tuple(rows.draw_factors(three.weight, s, 2 * kept, kept > 0, rng).flatten().tolist()) for _ in range(60)}
    assert (1, 1, 1) in found
    assert all(each == (1, 1, 1) or 0 in each for each in found)

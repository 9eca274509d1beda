"""Pruning of single weights: the statements of methods 7 that concern them, and the numbers of the authors' code."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from micro_net import WEIGHT, linear
from oracle import AGREEMENT, ORACLE, network
from pfpcli.channels import rules
from pfpcli.channels.labelling import label
from pfpcli.channels.rules import Columns
from pfpcli.cutting.certificate import measured_error
from pfpcli.graph.graph import Graph, owner
from pfpcli.graph.trace import trace
from pfpcli.scoring import pfp
from pfpcli.sparsity import rows, sipp
from pfpcli.sparsity.choose import keep_largest, rankable
from pfpcli.sparsity.row_counts import allocate, optimal_counts
from zoo import Calls

shared = pytest.mark.skipif(not ORACLE.is_dir(), reason="the shared folder is not here")
aten = torch.ops.aten


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def a_layer(samples: int = 6, groups: int = 1, signed: bool = False, seed: int = 0) -> Columns:
    """Five outputs, seven inputs, four kernel positions, nine patches."""
    x = torch.randn(samples, groups, 7, 4, 9, generator=generator(seed))
    weight = torch.randn(groups, 5, 7, 4, generator=generator(seed + 1))
    return Columns(x if signed else x.clamp(min=0), weight)


def reference(columns: Columns, patches: str) -> Tensor:
    """The definition, one quotient after the other."""
    x, weight = columns.x.flatten(2, 3), columns.weight.flatten(2)
    s = torch.zeros_like(weight)
    halves = [x.clamp(min=0), (-x).clamp(min=0)] if (x < 0).any() else [x]
    for a, w in itertools.product(halves, (weight.clamp(min=0), (-weight).clamp(min=0))):
        for n, g, o in np.ndindex(len(x), *w.shape[:2]):
            terms = w[g, o, :, None] * a[n, g]
            z = terms.sum(0)
            shares = torch.where(z > pfp.EPSILON, terms / z, 0)
            s[g, o] = torch.maximum(s[g, o], shares.amax(1) if patches == "max" else shares.mean(1))
    return s.view_as(columns.weight)


def most_sensitive(columns: Columns, budget: int, patches: str = "max") -> tuple[Tensor, Tensor]:
    """(sensitivities, which weights stay)."""
    s = sipp.weight_sensitivity(columns, patches)
    (kept,) = keep_largest([rankable(s, columns.weight)], budget)
    return s, kept


def rows_of(columns: Columns) -> tuple[Tensor, rows.Rows]:
    s = sipp.weight_sensitivity(columns, "max")
    kernel, patches = columns.x.shape[3:]
    return s, rows.rows_of(columns.weight, s, pfp.log_term(patches, kernel))


# Sensitivities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("patches", ["max", "mean"])
def test_the_weights_of_the_micro_net(patches: str) -> None:  # 1
    s = sipp.weight_sensitivity(linear(torch.tensor([[1.0, 2, 3]])), patches)[0, :, :, 0]
    assert torch.equal(s, torch.tensor([[0.5, 0.5, 0], [0.25, 1, 0.75]]))
    # with one kernel position the sensitivity of a channel is that of its most sensitive weight
    assert torch.equal(s.amax(0), pfp.sensitivity(linear(torch.tensor([[1.0, 2, 3]])))[0])


def test_more_data_can_only_raise_the_sensitivity_of_a_weight() -> None:  # 2
    columns = a_layer(20, signed=True)
    few = Columns(columns.x[:7], columns.weight)
    rest = Columns(columns.x[7:], columns.weight)
    for patches in ("max", "mean"):
        found = [sipp.weight_sensitivity(each, patches) for each in (columns, few, rest)]
        torch.testing.assert_close(found[0], torch.maximum(found[1], found[2]), rtol=2e-5, atol=0)


def test_inputs_of_mixed_sign_are_two_points() -> None:  # 3
    s = sipp.weight_sensitivity(linear(torch.tensor([[1.0, -2, 3]])), "max")[0, :, :, 0]
    assert torch.equal(s, torch.tensor([[1.0, 1, 0], [0.25, 1, 0.75]]))


def test_what_the_sensitivity_of_a_weight_does_not_depend_on() -> None:  # 4
    columns = a_layer()
    for patches in ("max", "mean"):
        s = sipp.weight_sensitivity(columns, patches)
        close = {"rtol": 2e-5, "atol": 0}
        torch.testing.assert_close(
            sipp.weight_sensitivity(Columns(7.5 * columns.x, columns.weight), patches), s, **close
        )
        scale = torch.tensor([0.1, 3, 20, 1, 8])[:, None, None]
        torch.testing.assert_close(
            sipp.weight_sensitivity(Columns(columns.x, scale * columns.weight), patches), s, **close
        )
        t = torch.rand(7, 1, generator=generator()) + 0.5
        moved = Columns(columns.x * t[..., None], columns.weight / t)
        torch.testing.assert_close(sipp.weight_sensitivity(moved, patches), s, **close)


@pytest.mark.parametrize("patches", ["max", "mean"])
def test_weights_that_never_matter_have_none_and_no_sensitivity_is_above_one(patches: str) -> None:  # 5
    columns = a_layer(groups=2, signed=True)
    columns.x[:, :, 1] = 0
    columns.weight[:, :, 2] = 0
    s = sipp.weight_sensitivity(columns, patches)
    assert (s[:, :, 1:3] == 0).all()
    assert ((s >= 0) & (s <= 1 + 1e-6)).all()
    assert (sipp.weight_sensitivity(Columns(1e-9 * columns.x, columns.weight), patches) == 0).all()


@pytest.mark.parametrize(("patches", "expected"), [("max", [0.5, 1]), ("mean", [0.25, 0.75])])
def test_patches_are_judged_one_by_one_or_on_average(patches: str, expected: list[float]) -> None:  # 6
    x = torch.tensor([[1.0, 0], [1.0, 2]])[None, None, :, None, :]
    s = sipp.weight_sensitivity(Columns(x, torch.ones(1, 1, 2, 1)), patches)
    assert torch.equal(s.flatten(), torch.tensor(expected))


def test_every_weight_of_a_kernel_has_a_share_of_its_own() -> None:  # 7
    columns = Columns(torch.ones(1, 1, 2, 9, 1), torch.ones(1, 1, 2, 9))
    for patches in ("max", "mean"):
        torch.testing.assert_close(sipp.weight_sensitivity(columns, patches), torch.full((1, 1, 2, 9), 1 / 18))


@pytest.mark.parametrize("patches", ["max", "mean"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("samples", [1, 6])  # fewer and more positions than a row has weights
def test_blocks_give_what_the_definition_gives(
    patches: str, signed: bool, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:  # 8
    columns = a_layer(samples, groups=3, signed=signed)
    columns.x[:, :, :, :, 2] = 0  # a patch without anything
    expected = reference(columns, patches)
    for block in (1, 100, 700, 5000, 1 << 20):
        monkeypatch.setitem(pfp._BLOCK, "cpu", block)
        torch.testing.assert_close(sipp.weight_sensitivity(columns, patches), expected, rtol=2e-5, atol=0)


# The largest of all ----------------------------------------------------------------------------------------------


def test_the_largest_of_all_layers_stay_and_the_first_of_equal_ones() -> None:
    scores = [torch.tensor([[0.3, 0.5], [0.1, 0.5]]), torch.tensor([0.5, 0.9, 0.0])]
    kept = keep_largest(scores, 3)
    assert [each.tolist() for each in kept] == [[[False, True], [False, True]], [False, True, False]]
    for budget in range(9):
        assert sum(int(each.sum()) for each in keep_largest(scores, budget)) == min(budget, 7)


def test_no_budget_goes_to_weights_that_are_zero_already() -> None:
    weight = torch.tensor([0.0, -3, 0, 1, 2])
    assert keep_largest([rankable(weight.abs(), weight)], 2)[0].tolist() == [False, True, False, False, True]
    assert keep_largest([rankable(torch.zeros(5), weight)], 5)[0].tolist() == [False, True, False, True, True]


# Errors and budgets ----------------------------------------------------------------------------------------------


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


# What becomes of a layer -----------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("budget", [0, 20, 70, 120])
def test_no_output_loses_more_than_the_sensitivities_its_row_drops(budget: int) -> None:  # 11
    columns = a_layer(30, groups=2, signed=True)
    s, kept = most_sensitive(columns, budget)
    bound = sipp.certificate(columns.weight, s, kept)
    for part in pfp.halves(columns.x):
        for sign, own in enumerate((columns.weight.clamp(min=0), columns.weight.neg().clamp(min=0))):
            one_sign = measured_error(Columns(part, own), own * kept)
            assert (one_sign <= bound[sign] * (1 + 1e-5)).all()
            assert one_sign.max() > 0
    both = measured_error(columns, columns.weight * kept)
    assert (both <= bound.amax(0) * (1 + 1e-5)).all()


def test_the_certificate_and_the_error_of_the_micro_net() -> None:  # 11
    columns = linear(torch.tensor([[1.0, 2, 3]]))
    kept = torch.tensor([[True, False, True], [True, True, True]])[None, :, :, None]
    s = sipp.weight_sensitivity(columns, "max")
    assert sipp.certificate(columns.weight, s, kept).tolist() == [[[0.5, 0]], [[0, 0]]]
    assert measured_error(columns, columns.weight * kept).tolist() == [[0.5, 0]]
    elsewhere = linear(torch.tensor([[1.0, 8, 3], [0, 0, 0]]))
    assert torch.equal(measured_error(elsewhere, columns.weight * kept), torch.tensor([[0.8, 0]]))


def test_the_error_of_cutting_off_is_what_is_not_among_the_largest() -> None:
    columns = linear(torch.tensor([[1.0, 2, 3]]))
    s = sipp.weight_sensitivity(columns, "max")
    one, none = np.ones((2, 1, 2), dtype=np.int64), np.zeros((2, 1, 2), dtype=np.int64)
    assert rows.error_dropped(columns.weight, s, one).tolist() == [[[1.5, 0]], [[0, 0.75]]]
    assert rows.error_dropped(columns.weight, s, none).tolist() == [[[3, 3]], [[0, 3]]]


# Back to the weight ----------------------------------------------------------------------------------------------

LAYERS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "convolution": (lambda x, w: F.conv2d(x, w, stride=2, padding=1), (2, 4, 6, 6), (6, 4, 3, 2)),
    "grouped": (lambda x, w: F.conv2d(x, w, groups=2), (2, 4, 6, 6), (6, 2, 3, 3)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2), (2, 4, 5, 5), (4, 6, 3, 2)),
    "grouped transposed": (lambda x, w: F.conv_transpose1d(x, w, groups=2), (2, 4, 5), (4, 3, 3)),
    "linear": (F.linear, (2, 3, 4), (6, 4)),
    "transposed product": (torch.matmul, (2, 3, 4), (4, 6)),
    "scaled product": (lambda x, w: aten.addmm(x.new_zeros(6), x, w, alpha=-0.3), (3, 4), (4, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_belongs_to_a_weight_finds_its_way_back(name: str) -> None:
    call, shape, sizes = LAYERS[name]
    x = torch.randn(shape, generator=generator())
    weight = torch.randn(sizes, generator=generator(1))
    graph = trace(Calls(lambda m, y: call(y, m.weight), weight=nn.Parameter(weight)), (x,))
    (contraction,) = [c for c in label(graph).contractions if c.weight is not None]
    rule = rules.find(contraction.node.target)

    def columns(w: Tensor) -> Columns:
        return rule.columns(contraction.node, x, w)

    s = sipp.weight_sensitivity(columns(weight), "max")
    with torch.no_grad():
        back = rules.into_weight(s, lambda w: columns(w).weight, weight)
    assert back.shape == weight.shape
    # a weight alone in its layer: the only place of its columns that is not zero holds its number
    for place in range(weight.numel()):
        alone = torch.zeros(weight.numel())
        alone[place] = 1
        there = columns(alone.view_as(weight)).weight != 0
        torch.testing.assert_close(back.flatten()[place], s[there][0], rtol=1e-6, atol=0)
        assert there.sum() == 1
    # masking the columns is masking the weight
    kept = (s > s.median()).float()
    masked = weight * rules.into_weight(kept, lambda w: columns(w).weight, weight)
    torch.testing.assert_close(columns(masked).weight, columns(weight).weight * kept, rtol=1e-6, atol=0)


# The authors' numbers --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def theirs() -> dict:
    return json.loads((ORACLE / "sipp_linear.json").read_text())


@pytest.fixture(scope="module")
def columns(theirs: dict) -> Columns:
    return linear(torch.tensor(theirs["x"]), torch.tensor(theirs["weight"]))


BUDGETS = ["18", "36", "54"]


def assert_same_but_for_ties(kept: np.ndarray, expected: np.ndarray, scores: np.ndarray) -> None:
    """Masks over all weights may differ only where the score is that of the last one kept."""
    assert kept.sum() == expected.sum()
    last = scores[kept].min()
    assert (abs(scores[kept != expected] - last) <= AGREEMENT * last).all()


@shared
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_linear_layer_has_the_authors_sensitivities_and_masks(theirs: dict, columns: Columns, budget: str) -> None:
    s, kept = most_sensitive(columns, int(budget), "mean")
    np.testing.assert_allclose(s[0, :, :, 0], theirs["sens"], rtol=AGREEMENT)
    expected = np.array(theirs["budgets"][budget]["det"]["kept"], dtype=bool)
    assert_same_but_for_ties(kept[0, :, :, 0].numpy(), expected, s[0, :, :, 0].numpy())


@shared
@pytest.mark.parametrize("budget", BUDGETS)
def test_a_linear_layer_gets_the_authors_allocation_before_it_is_rounded(
    theirs: dict, columns: Columns, budget: str
) -> None:
    expected = theirs["budgets"][budget]["rand"]
    _, layer = rows_of(columns)
    np.testing.assert_allclose(layer.alpha.ravel(), expected["alpha"], rtol=AGREEMENT)
    assert layer.live.ravel().tolist() == layer.present.ravel().tolist() == expected["nnz"]
    x = optimal_counts(layer.alpha.ravel(), np.full(12, 1 / 6), layer.live.ravel(), int(budget))
    np.testing.assert_allclose(x, expected["x_opt"], rtol=1e-5)
    up = np.ceil(x - 1e-9).astype(int).reshape(2, 6).tolist()
    assert up == [expected["alloc_plus"], expected["alloc_minus"]]
    kept = allocate([layer], int(budget))[0]
    assert kept.sum() == int(budget) < sum(sum(row) for row in up)


@shared
@pytest.mark.parametrize("budget", BUDGETS)
def test_errors_of_rows_are_the_authors(theirs: dict, columns: Columns, budget: str) -> None:
    expected = theirs["budgets"][budget]["hybrid"]
    s, layer = rows_of(columns)
    kept = np.array(expected["det_positive_rand_negative"]).reshape(2, 1, 6)
    drawn, dropped = rows.error_drawn(layer.alpha, kept), rows.error_dropped(columns.weight, s, kept)
    np.testing.assert_allclose(drawn[:, 0], expected["err_rand"], rtol=AGREEMENT)
    np.testing.assert_allclose(dropped[:, 0], expected["err_det"], rtol=AGREEMENT, atol=1e-6)
    assert not rows.better_drawn(layer, columns.weight, s, kept).any()


@shared
@pytest.mark.parametrize("budget", BUDGETS)
def test_draws_are_at_least_the_authors_who_may_stop_one_distinct_weight_short(
    theirs: dict, columns: Columns, budget: str
) -> None:
    expected = theirs["budgets"][budget]["rand"]
    s = sipp.weight_sensitivity(columns, "max")
    weight = columns.weight[0, :, :, 0]
    for sign, side in enumerate(("plus", "minus")):
        for o in range(6):
            q = s[0, o, :, 0][(weight[o] < 0) if sign else (weight[o] > 0)].double().numpy()
            q /= q.sum()
            wanted, samples = (expected[f"{each}_{side}"][o] for each in ("alloc", "samples"))
            wanted = min(wanted, len(q) - 1)
            draws = pfp.draws_for(q, wanted)
            assert wanted - 1 < pfp.expected_distinct(q, samples)
            assert samples <= draws


class EveryLayer(fx.Interpreter):
    """Sensitivities of every weight of every layer, in the shapes of the weights."""

    def __init__(self, graph: Graph, patches: str) -> None:
        super().__init__(graph.module)
        self._patches = patches
        self._layers = {c.node: c for c in label(graph).contractions if c.weight is not None}
        self.found: dict[str, Tensor] = {}

    def run_node(self, n: fx.Node) -> object:
        if n in self._layers:
            x, weight = self.env[self._layers[n].x], self.env[self._layers[n].weight]
            rule = rules.find(n.target)
            s = sipp.weight_sensitivity(rule.columns(n, x, weight), self._patches)
            self.found[owner(n)] = rules.into_weight(s, lambda w: rule.columns(n, x, w).weight, weight)
        return super().run_node(n)


def every_layer(name: str, patches: str) -> dict[str, Tensor]:
    graph, images = network(name)
    walk = EveryLayer(graph, patches)
    with torch.no_grad():
        walk.run(images)
    return walk.found


def assert_agree(found: dict[str, Tensor], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for layer, s in found.items():
        np.testing.assert_allclose(s, expected[layer], rtol=AGREEMENT, atol=0, err_msg=layer)


@shared
@pytest.mark.parametrize("name", ["tinyvgg", "oddnet"])
def test_the_largest_shares_of_weights_are_those_of_the_authors_code(name: str) -> None:
    assert_agree(every_layer(name, "max"), dict(np.load(ORACLE / f"pfp_{name}_full.npz")))


@shared
def test_the_mean_shares_and_the_masks_of_a_network_are_those_of_the_authors_code() -> None:
    found, theirs = every_layer("tinyvgg", "mean"), np.load(ORACLE / "sipp_tinyvgg_det.npz")
    assert_agree(found, {layer: theirs[f"sens/{layer}"] for layer in found})
    for keep in ("0.3", "0.5"):
        expected = np.concatenate([theirs[f"keep{keep}/{layer}"].ravel() for layer in found])
        kept = keep_largest(list(found.values()), int(expected.sum()))
        assert np.array_equal(np.concatenate([each.flatten() for each in kept]), expected)

"""The numbers of the authors' own code for single weights, where the shared folder holds them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import Tensor, fx

from micro_net import linear
from oracle import AGREEMENT, ORACLE, network
from pfpcli.channels import rules
from pfpcli.channels.labelling import label
from pfpcli.channels.rules import Columns
from pfpcli.graph.graph import Graph, owner
from pfpcli.scoring import pfp
from pfpcli.sparsity import rows, sipp
from pfpcli.sparsity.choose import keep_largest
from pfpcli.sparsity.row_counts import allocate, optimal_counts
from random_layer import most_sensitive, rows_of

shared = pytest.mark.skipif(not ORACLE.is_dir(), reason="the shared folder is not here")


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

"""The errors of layers: bounds on the scoring images, and measurements on other images."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting import certificate
from pfpcli.cutting.cut import cut
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.cutting.reweight import reweight
from pfpcli.errors import BudgetError
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.planning.plan import Budget, Plan
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import Scores
from planned import plan
from tasks import scores as score
from traced import grouped
from zoo import ZOO, Net, conv, head

WIDE = Net(lambda: nn.Sequential(conv(3, 24), conv(24, 32), conv(32, 24), head(24)), ((3, 8, 8),))
#: Nets with one input and something to prune.
NETS = {"wide": WIDE, **{name: net for name, net in ZOO.items() if len(net.inputs) == 1 and name != "unknown_op"}}
SELECTIONS = ("largest", "sampled", "mixed")


@cache
def scored(name: str) -> tuple[Groups, Scores]:
    groups = group(label(trace(WIDE.module(), WIDE.example()))) if name == "wide" else grouped(name)
    return groups, score(groups, [NETS[name].example(batch=8, seed=1)[0]])


def planned(name: str, select: str, keep: float = 0.6) -> Plan:
    groups, scores = scored(name)
    try:
        return plan(groups, scores, Budget(keep), select=select, seed=3)
    except BudgetError as error:
        return plan(groups, scores, Budget(float(error.hint.split()[2].strip("`"))), select=select, seed=3)


@pytest.mark.parametrize("name", NETS)
def test_something_can_be_pruned_in_every_net(name: str) -> None:
    assert any(reader.units.any() for reader in readers(scored(name)[0]))


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("name", NETS)
def test_no_error_on_the_scoring_images_exceeds_the_bound_of_its_layer(name: str, select: str) -> None:
    groups, scores = scored(name)
    made, found = planned(name, select), readers(groups)
    measured, images = certificate.measure(made, found, [NETS[name].example(batch=8, seed=1)[0]])
    rows = certificate.certificate(made, found, scores, reduce="sum", delta=1e-16, measured=measured)
    assert images == 8
    assert [row.name for row in rows] == list(measured)
    for row in rows:
        assert row.measured is not None
        assert row.bound is not None
        assert row.measured <= row.bound * (1 + 1e-4) + 1e-6


def test_a_bound_is_the_sum_of_the_shares_of_dropped_channels() -> None:
    groups, scores = scored("wide")
    made = planned("wide", "largest")
    rows = certificate.certificate(made, readers(groups), scores, reduce="sum", delta=1e-16, measured={})
    for row in rows:
        layer = next(layer for layer in scores.layers if layer.name == row.name)
        gone = ~made.alive[layer.units]
        assert row.bound == pytest.approx(layer.shares[gone].sum())
        assert (row.size - row.kept, row.total) == (gone.sum(), pytest.approx(layer.shares.sum()))


def test_shares_of_single_weights_bound_nothing() -> None:
    groups, scores = scored("wide")
    made = planned("wide", "largest")
    rows = certificate.certificate(made, readers(groups), scores, reduce="max", delta=1e-16, measured={})
    assert rows
    assert all(row.bound is None for row in rows)


def test_the_graph_is_back_on_its_device_after_an_error_in_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    moves: list[str] = []
    monkeypatch.setattr(Graph, "to", lambda graph, device: moves.append(str(device)))
    made = planned("wide", "largest")

    def broken() -> Iterator[torch.Tensor]:
        raise OSError("unreadable")
        yield

    with pytest.raises(OSError, match="unreadable"):
        certificate.measure(made, readers(made.groups), broken(), "cuda")
    assert moves == ["cuda", "cpu"]


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("name", ["wide", "residual", "concat", "flatten_linear"])
def test_every_layer_stays_within_the_epsilon_of_the_budget(name: str, epsilon: float) -> None:
    groups, scores = scored(name)
    made = plan(groups, scores, Budget(epsilon=epsilon))
    rows = certificate.certificate(made, readers(groups), scores, reduce="sum", delta=1e-16, measured={})
    assert all(row.bound is not None and row.bound <= epsilon for row in rows)


def test_a_larger_epsilon_leaves_a_smaller_network() -> None:
    groups, scores = scored("wide")
    costs = [plan(groups, scores, Budget(epsilon=e)).after.params for e in (1e-6, 0.1, 0.3, 0.6, 1.0, 3.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


@pytest.mark.parametrize("select", ["sampled", "mixed"])
@pytest.mark.parametrize("name", NETS)
def test_a_re_weighted_network_equals_the_original_with_factors_on_the_channels_that_layers_read(
    name: str, select: str
) -> None:
    groups, _ = scored(name)
    if any(g.inexact for g in groups.prunable) or any(not r.has_weights and r.units.any() for r in readers(groups)):
        return  # statistics across channels, and products of activations, have no weights that could be multiplied
    made, found = planned(name, select), readers(groups)
    pair = cut(groups.labelled, made.alive)
    smaller = pair.graph
    reweight(pair, made, found)
    x = NETS[name].example(batch=3, seed=5)[0]

    class Multiplied(torch.fx.Interpreter):
        """Runs the original; each layer reads its channels times their factors."""

        def run_node(self, n: torch.fx.Node) -> object:
            before = dict(self.env)
            for reader in (each for each in found if each.has_weights and each.node is n):
                read = self.env[reader.x]
                sizes = [1] * read.dim()
                sizes[reader.contraction.dim] = -1
                factors = torch.from_numpy(certificate.channel_factors(made, reader)).float()
                self.env[reader.x] = read * factors.view(sizes)
            value = super().run_node(n)
            self.env.update(before)
            return value

    walk = Multiplied(groups.labelled.graph.module, garbage_collect_values=False)
    with torch.no_grad():
        expected, result = walk.run(x), smaller.module(x)
    for a, b in zip(torch.utils._pytree.tree_leaves(result), torch.utils._pytree.tree_leaves(expected), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


@pytest.mark.parametrize("name", NETS)
def test_a_plan_is_read_back_as_it_was_written(name: str) -> None:
    made = planned(name, "sampled")
    found = readers(made.groups)
    again = PlanFile.of_plan(made, Slicing(made.groups.labelled, made.alive), found).plan(made.groups, found)
    for node, axes in made.groups.labelled.axes.items():
        if node.op == "get_attr":
            assert all((again.alive[vector] == made.alive[vector]).all() for vector in axes.vectors)
    for reader in found:
        if reader.has_weights:
            np.testing.assert_allclose(
                certificate.channel_factors(again, reader), certificate.channel_factors(made, reader)
            )
    assert again.after == made.after


def test_draws_keep_within_their_epsilon_far_more_often_than_delta_allows() -> None:  # 9
    weight = np.array([[2.0, 1, 0], [-1, 1, -1]])
    x = np.array([1.0, 2, 3])
    s = np.array([0.5, 1, 0.75])
    q = s / s.sum()
    draws = pfp.enough_draws(0.5, 2.25, 3, 0.1)
    assert draws == 86
    counts = np.random.default_rng(0).multinomial(draws, q, size=200_000)
    factors = counts / (draws * q)
    np.testing.assert_allclose(factors.mean(0), 1, atol=1e-3)
    rows = np.stack([weight[0].clip(min=0), weight[1].clip(min=0), (-weight[1]).clip(min=0)]) * x
    errors = np.abs(factors @ rows.T / rows.sum(1) - 1)
    assert (errors.max(1) > 0.5).mean() <= 1e-3
    variances = (errors**2).mean(0)
    np.testing.assert_allclose(sorted(variances), sorted([0.0080, 0.0145, 0.0113]), rtol=0.03)
    assert variances.max() <= 2.25 / draws


def test_the_error_of_so_many_draws_is_the_one_they_are_enough_for() -> None:
    for epsilon in (0.1, 0.5, 2.0):
        draws = pfp.enough_draws(epsilon, 7.5, 1000, 1e-9)
        assert pfp.error_of_draws(draws, 7.5, 1000, 1e-9) <= epsilon < pfp.error_of_draws(draws - 1, 7.5, 1000, 1e-9)

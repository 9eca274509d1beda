"""The errors of layers: bounded on the images scored, measured on others, and read back from a run."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.activations.walk import Walk
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cli import main as cli
from pfpcli.cutting import certificate
from pfpcli.cutting.cut import cut
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.cutting.reweight import reweight
from pfpcli.errors import BudgetError
from pfpcli.graph.trace import trace
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.planner import plan
from pfpcli.records.reading import read
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import Scores
from tasks import scores as score
from traced import grouped
from zoo import ZOO, Net, conv, head

WIDE = Net(lambda: nn.Sequential(conv(3, 24), conv(24, 32), conv(32, 24), head(24)), ((3, 8, 8),))
#: Nets with one input in which something can go.
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


def test_in_each_of_the_nets_something_can_go() -> None:
    assert [name for name in NETS if not any(reader.units.any() for reader in readers(scored(name)[0]))] == []


@pytest.mark.parametrize("select", SELECTIONS)
@pytest.mark.parametrize("name", NETS)
def test_on_the_images_scored_no_layer_errs_by_more_than_its_bound(name: str, select: str) -> None:
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


def test_a_bound_is_the_sum_of_what_was_dropped() -> None:
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


@pytest.mark.parametrize("epsilon", [0.05, 0.3, 0.9])
@pytest.mark.parametrize("name", ["wide", "residual", "concat", "flatten_linear"])
def test_an_error_that_is_asked_for_holds_at_every_layer(name: str, epsilon: float) -> None:
    groups, scores = scored(name)
    made = plan(groups, scores, Budget(epsilon=epsilon))
    rows = certificate.certificate(made, readers(groups), scores, reduce="sum", delta=1e-16, measured={})
    assert all(row.bound is not None and row.bound <= epsilon for row in rows)


def test_a_larger_error_leaves_a_smaller_network() -> None:
    groups, scores = scored("wide")
    costs = [plan(groups, scores, Budget(epsilon=e)).after.params for e in (1e-6, 0.1, 0.3, 0.6, 1.0, 3.0)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0]


@pytest.mark.parametrize("select", ["sampled", "mixed"])
@pytest.mark.parametrize("name", NETS)
def test_a_re_weighted_network_is_the_original_with_its_channels_multiplied_where_layers_read_them(
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

    def multiply(reader: object, read: torch.Tensor, weight: torch.Tensor) -> None:
        assert isinstance(reader, type(found[0]))
        sizes = [1] * read.dim()
        dim = reader.contraction.dim
        sizes[dim] = read.shape[dim]
        walk.env[reader.x] = read * torch.from_numpy(certificate.channel_factors(made, reader)).float().view(sizes)

    class Multiplied(Walk):
        def run_node(self, n: torch.fx.Node) -> object:
            before = dict(self.env)
            value = super().run_node(n)
            self.env.update(before)
            return value

    walk = Multiplied(groups.labelled.graph.module, [r for r in found if r.has_weights], multiply)
    walk.garbage_collect_values = False
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


# --- pfp certify ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder beside its model and two folders of images."""
    home = tmp_path_factory.mktemp("certify")
    torch.manual_seed(0)
    torch.save(
        nn.Sequential(nn.Conv2d(3, 12, 3), nn.ReLU(), nn.Conv2d(12, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3)),
        home / "net.pt",
    )
    for folder, count, spread in (("images", 12, 1.0), ("other", 5, 1.0)):
        (home / folder).mkdir()
        for i in range(count):
            np.save(home / folder / f"{i}.npy", spread * torch.randn(3, 10, 10).numpy())
    args = [
        "compress",
        str(home / "net.pt"),
        "--calib",
        str(home / "images"),
        "--keep",
        "0.5",
        "--out",
        str(home / "run"),
    ]
    assert cli.run(args) == 0
    return home / "run"


def test_certify_measures_every_layer_on_other_images(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = ["certify", str(run), str(run.parent / "net.pt"), "--calib", str(run.parent / "other")]
    assert cli.run([*args, "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    recorded = read(run).certificate.layers
    assert [row["name"] for row in found["layers"]] == [row.name for row in recorded]
    assert (found["images"], found["folder"], found["model"], found["run"]) == (5, "other", "net.pt", "run")
    assert all(row["here"] > 0 for row in found["layers"])
    code = cli.run(args)
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("FAILED  " if code else "PASS  ")


def test_on_the_run_s_own_images_certify_finds_what_the_run_found(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["certify", str(run), str(run.parent / "net.pt"), "--calib", str(run.parent / "images"), "--json"]
    cli.run(args)
    found = json.loads(capsys.readouterr().out)
    for row in found["layers"]:
        assert row["here"] >= row["measured"] * (1 - 1e-4)


def test_certify_refuses_another_model(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)), run.parent / "other.pt")
    assert cli.run(["certify", str(run), str(run.parent / "other.pt"), "--calib", str(run.parent / "other")]) == 2
    assert "error: other.pt: not the file that run was made of (net.pt)" in capsys.readouterr().err


def test_certify_looks_for_the_model_by_its_name(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.run(["certify", str(run), "--calib", str(run.parent / "other")]) == 2
    assert "error: run: made of net.pt, which is not in this folder" in capsys.readouterr().err
    monkeypatch.chdir(run.parent)
    assert cli.run(["certify", str(run), "--calib", str(run.parent / "other")]) in (0, 1)

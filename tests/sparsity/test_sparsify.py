"""Removal of single weights: what stays, what is said about it, and what a run folder holds."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pfpcli
from commands import Done, draw, hashes, plain, run_onnx
from pfpcli import report
from pfpcli.activations.losses import per_sample_loss
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cli import main as cli
from pfpcli.cutting.cut import cut
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.planning.planner import without
from pfpcli.records import reading
from pfpcli.records.folders import FILES
from pfpcli.records.runs import SparseRun
from pfpcli.scoring.criteria import WEIGHT_CRITERIA
from pfpcli.sparsity.choose import Chosen, choose
from pfpcli.sparsity.weight_scores import _gradients, score_weights
from pfpcli.sparsity.weights import Amount, Weights, amount_of, nonzeros, weights_of
from pfpcli.sparsity.zeroing import dead_channels, dead_units, layer_errors, zero_weights
from properties import difference
from runs import run
from zoo import ZOO, Calls

DETERMINISTIC = [name for name, criterion in WEIGHT_CRITERIA.items() if criterion.form == "largest"]
DRAWN = [name for name in WEIGHT_CRITERIA if name not in DETERMINISTIC]


@dataclass(frozen=True)
class Sparse:
    """A network whose weights were chosen, without a run around it."""

    groups: Groups
    task: Task
    readers: list[Reader]
    weights: list[Weights]
    amount: Amount
    chosen: list[Chosen]
    graph: Graph

    @property
    def factors(self) -> Tensor:
        return torch.cat([one.factor.flatten() for one in self.chosen])


@cache
def followed(net: str) -> tuple[Groups, Tensor]:
    """A network of the zoo, or the wide one, and images for it."""
    module = plain() if net == "wide" else ZOO[net].module()
    x = ZOO[net if net in ZOO else "plain"].example(4)[0]
    return group(label(trace(module, (x[:2],)))), x


def sparsified(
    net: nn.Module | str,
    criterion: str = "sipp",
    keep: float = 0.4,
    seed: int = 0,
    freeze: tuple[str, ...] = (),
    batches: list[tuple[Tensor, Any]] | None = None,
) -> Sparse:
    """A network without some of its weights, chosen on noise."""
    if isinstance(net, str):
        groups, x = followed(net)
    else:
        x = ZOO["plain"].example(4)[0]
        groups = group(label(trace(net, (x[:2],))))
    graph, found = groups.labelled.graph, readers(groups)
    weights = weights_of(groups, found, freeze)
    amount = amount_of(graph, weights, keep)
    task = Task(groups, found, lambda: batches or [(x[:2], None), (x[2:], None)], torch.device("cpu"))
    how = WEIGHT_CRITERIA[criterion]
    chosen = choose(weights, score_weights(task, weights, how), how, amount.budget, 1e-16, seed)
    alive = groups.alive(np.zeros(0, np.int64))
    thinned, kept = cut(groups.labelled, alive)[::-1]
    zero_weights(thinned, kept, weights, chosen)
    return Sparse(groups, task, found, weights, amount, chosen, thinned)


# --- what stays ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_keeping_everything_changes_no_bit(criterion: str) -> None:
    made = sparsified("wide", criterion, 1)
    before, after = (each.module.state_dict() for each in (made.groups.labelled.graph, made.graph))
    # as integers, so that the sign of a zero counts
    assert all(torch.equal(value.view(torch.int32), after[name].view(torch.int32)) for name, value in before.items())


@pytest.mark.parametrize("criterion", DETERMINISTIC)
@pytest.mark.parametrize("keep", [0.1, 0.45])
def test_the_budget_is_met_exactly_where_nothing_is_drawn(criterion: str, keep: float) -> None:
    made = sparsified("wide", criterion, keep)
    assert nonzeros(made.graph) == int(keep * made.amount.total)
    assert set(made.factors.tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("criterion", DRAWN)
def test_what_is_drawn_comes_close_to_the_budget_and_is_multiplied(criterion: str) -> None:
    made = sparsified("wide", criterion, 0.5)
    assert nonzeros(made.graph) / made.amount.total == pytest.approx(0.5, rel=0.1)
    if criterion == "sipp-rand":
        assert (made.factors > 1).any()


@pytest.mark.parametrize("criterion", DETERMINISTIC)
def test_what_is_not_drawn_does_not_depend_on_the_seed(criterion: str) -> None:
    assert torch.equal(sparsified("wide", criterion, seed=0).factors, sparsified("wide", criterion, seed=1).factors)


def test_what_is_drawn_follows_from_the_seed() -> None:
    first, again, other = (sparsified("wide", "sipp-rand", seed=seed).factors for seed in (3, 3, 4))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("criterion", ["sipp", "sipp-rand"])
def test_frozen_layers_are_left_as_they_are_and_count(criterion: str) -> None:
    made = sparsified("wide", criterion, 0.8, freeze=("1", "4.*"))
    before, after = made.groups.labelled.graph.module.state_dict(), made.graph.module.state_dict()
    assert {each.name for each in made.weights} == {"0.0", "3.0"}
    assert torch.equal(before["1.0.weight"], after["1.0.weight"])
    assert not torch.equal(before["3.0.weight"], after["3.0.weight"])
    assert nonzeros(made.graph) / made.amount.total == pytest.approx(0.8, rel=0.1)


def test_zeros_have_no_sign() -> None:
    state = sparsified("wide", "magnitude", 0.2).graph.module.state_dict()
    weight = state["1.0.weight"]
    assert not torch.signbit(weight[weight == 0]).any()


@pytest.mark.parametrize("criterion", WEIGHT_CRITERIA)
def test_weights_of_several_layers_have_the_largest_score_and_are_kept_once(criterion: str) -> None:
    made = sparsified("shared", criterion, 0.5)
    (twice,) = [each for each in made.weights if each.name == "twice.0"]
    assert len(twice.readers) == 2
    assert nonzeros(made.graph) / made.amount.total == pytest.approx(0.5, rel=0.1)
    how = WEIGHT_CRITERIA[criterion]
    if how.score in ("mean", "max"):
        both = score_weights(made.task, [twice], how).score[0]
        alone = [score_weights(made.task, [replace(twice, readers=(r,))], how).score[0] for r in twice.readers]
        assert torch.equal(both, torch.maximum(*alone))
        assert not torch.equal(*alone)


def test_a_tensor_that_something_else_works_with_too_is_left_alone() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y = x.mean((2, 3))
        return m.last(F.relu(m.first(y))) + F.embedding((y[:, 0] > 0).long(), m.first.weight)

    made = sparsified(Calls(forward, first=nn.Linear(3, 4), last=nn.Linear(4, 3)), "magnitude", 0.9)
    assert [each.name for each in made.weights] == ["last"]


def test_views_of_one_tensor_are_weights_of_their_own_layers() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        return F.relu(x.mean((2, 3)) @ m.both[:3]) @ m.both[3:]

    for criterion in ("sipp", "sipp-rand"):
        module = Calls(forward, both=nn.Parameter(torch.rand(8, 5, generator=torch.Generator().manual_seed(0)) + 0.1))
        made = sparsified(module, criterion, 0.6)
        assert [len(each.readers) for each in made.weights] == [2]
        assert nonzeros(made.graph) == pytest.approx(24, abs=4)


# --- what is known of it -------------------------------------------------------------------------------------------

#: One of the zoo for every way of reading channels.
NETS = ["plain", "residual", "grouped", "se_gate", "flatten_linear", "shared", "conv1d", "grouped_transposed", "norms"]


@pytest.mark.parametrize("net", [*NETS, "attention"])
@pytest.mark.parametrize("criterion", ["sipp", "magnitude"])
def test_on_the_images_scored_no_layer_errs_by_more_than_its_bound(net: str, criterion: str) -> None:
    made = sparsified(net, criterion, 0.7)
    for error, one in zip(layer_errors(made.task, made.weights, made.chosen), made.chosen, strict=True):
        assert one.bound is not None
        assert error <= one.bound * (1 + 1e-4) + 1e-6


def test_what_keeps_everything_errs_nowhere_and_what_keeps_nothing_by_what_it_gave() -> None:
    made = sparsified("wide", "sipp", 1)
    assert [one.bound for one in made.chosen] == layer_errors(made.task, made.weights, made.chosen) == [0.0] * 4
    nothing = [Chosen(torch.zeros_like(each.tensor), None) for each in made.weights]
    assert all(0.2 < error <= 1 for error in layer_errors(made.task, made.weights, nothing))


@pytest.mark.parametrize("net", NETS)
def test_channels_that_nothing_reads_can_be_cut_without_a_change(net: str) -> None:
    made = sparsified(net, "magnitude", 0.35)
    dead = dead_units(made.groups, made.readers, made.graph)
    planned = without(made.groups, dead)
    smaller = cut(made.groups.labelled, planned.alive).graph
    zero_weights(smaller, Slicing(made.groups.labelled, planned.alive), made.weights, made.chosen)
    x = made.groups.labelled.graph.example
    with torch.no_grad():
        assert difference(smaller.module(*x), made.graph.module(*x)) < 1e-5
    assert not dead[0]


def test_channels_that_a_norm_is_taken_across_are_not_dead() -> None:
    module = ZOO["norms"].module()
    with torch.no_grad():
        module[5].weight[:, 2] = 0  # the linear layer behind the layer norm
    made = sparsified(module, "magnitude", 1)
    assert dead_channels(made.groups, dead_units(made.groups, made.readers, made.graph)) == 0


# --- gradients -----------------------------------------------------------------------------------------------------


def test_the_loss_is_taken_against_labels_or_decisions_or_of_squares() -> None:
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    own = F.cross_entropy(scores, scores.argmax(1), reduction="none")
    torch.testing.assert_close(per_sample_loss({"a": torch.ones(4), "b": scores}, None), 0.5 + own)
    torch.testing.assert_close(per_sample_loss((torch.arange(4), scores), None), own)
    expected = F.cross_entropy(scores, torch.tensor([0, 4, 2, 1]), reduction="none")
    torch.testing.assert_close(per_sample_loss(scores, np.array([0, 4, 2, 1])), expected)
    torch.testing.assert_close(per_sample_loss(scores, np.array([0, 4, 2, 9])), own)  # there is no tenth class
    maps = scores.view(2, 5, 2)
    expected = F.cross_entropy(maps, maps.argmax(1), reduction="none").mean(1)
    torch.testing.assert_close(per_sample_loss(maps, np.array([1, 2])), expected)


def test_snip_is_the_mean_over_images_of_weight_times_slope() -> None:
    module = plain()
    x, labels = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(1)), np.array([0, 3, 1])
    made = sparsified(module, "snip", batches=[(x[:2], labels[:2]), (x[2:], labels[2:])])
    found = dict(zip([w.target for w in made.weights], _gradients(made.task, made.weights), strict=True))
    expected = torch.zeros_like(module[1][0].weight)
    for image, truth in zip(x, labels.tolist(), strict=True):
        module.zero_grad()
        F.cross_entropy(module(image[None]), torch.tensor([truth])).backward()
        expected += (module[1][0].weight * module[1][0].weight.grad).abs().detach() / 3
    torch.testing.assert_close(found["1.0.weight"], expected, rtol=1e-4, atol=1e-7)
    assert not any(each.tensor.requires_grad for each in made.weights)


# --- whole runs ----------------------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    def run(*args: str, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("COLUMNS", "100")
        capsys.readouterr()
        code = cli.run(args)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network three of whose channels nothing reads, images in two classes, and two runs that keep 0.4."""
    folder = tmp_path_factory.mktemp("sparsify")
    module = plain()
    with torch.no_grad():
        module[1][0].weight[:, 5:8] = 0
    torch.save(module, folder / "model.pt")
    for number, name in enumerate(("a", "b")):
        draw(folder / "imgs" / name, 6, seed=number)
    for name, settings in {"run": {}, "cut": {"cut_dead": True}}.items():
        pfpcli.sparsify(
            folder / "model.pt", folder / "imgs", keep=0.4, out=folder / name, threads=1, samples=6, **settings
        )
    return folder


def read(run: Path) -> SparseRun:
    found = reading.read(run)
    assert isinstance(found, SparseRun)
    return found


def test_a_run_folder_holds_the_models_and_the_record(folder: Path) -> None:
    assert set(hashes(folder / "run")) == {FILES[kind] for kind in ("onnx", "pt2", "pt", "run")}
    run, module = read(folder / "run"), torch.load(folder / "run" / FILES["pt"], weights_only=False)
    left = sum(int((p != 0).sum()) for p in module.parameters())
    assert (run.kind, run.status, run.requested) == ("sparsify", "ok", {"keep": 0.4})
    assert run.after.nonzeros == left == int(0.4 * run.before.params)
    assert run.achieved["keep"] == pytest.approx(left / run.before.params, abs=1e-6)
    assert run.before.params == run.after.params
    assert run.quality.metric == "accuracy"
    assert run.verification.cut_vs_masked is None
    assert run.verification.onnx_vs_torch < 1e-4
    fixed = run.before.nonzeros - sum(layer.nonzeros[0] for layer in run.layers)
    assert fixed + sum(layer.nonzeros[1] for layer in run.layers) == left
    assert run.json() == (folder / "run" / FILES["run"]).read_text(encoding="utf-8")


def test_the_zeros_are_in_the_initialisers_and_make_the_file_smaller_when_it_is_packed(folder: Path) -> None:
    run, file = read(folder / "run"), folder / "run" / FILES["onnx"]
    weights = [onnx.numpy_helper.to_array(each) for each in onnx.load(file).graph.initializer]
    zeros = sum(int((each == 0).sum()) for each in weights if each.dtype == np.float32 and each.ndim > 1)
    assert zeros == sum(layer.weights - layer.nonzeros[1] for layer in run.layers) > 0
    assert run.after.file_bytes == file.stat().st_size == pytest.approx(run.before.file_bytes, rel=0.02)
    assert run.after.deflated_bytes == len(zlib.compress(file.read_bytes(), 9)) < 0.7 * run.before.deflated_bytes


def test_dead_channels_are_found_and_the_network_without_them_is_the_same(folder: Path) -> None:
    whole, smaller = read(folder / "run"), read(folder / "cut")
    assert whole.dead["channels"] == smaller.dead["channels"] == smaller.dead["cut"] >= 3
    assert whole.dead["cut"] == 0
    assert smaller.after.params < whole.after.params
    assert smaller.after.macs < whole.after.macs == whole.before.macs
    assert smaller.verification.cut_vs_masked is not None
    assert smaller.verification.cut_vs_masked < 1e-9
    assert smaller.artifacts["plan"] == FILES["plan"]
    x = torch.randn(5, 3, 8, 8)
    expected, found = (run_onnx(folder / name / FILES["onnx"], x) for name in ("run", "cut"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_report_shows_what_is_left_and_how_far_off_it_is(folder: Path, command: Callable[..., Done]) -> None:
    done = command("report", "run", "--all", cwd=folder)
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("PASS  model.pt: 40.0 % of the parameters are nonzero (asked 40.0 %)\n")
    for text in ("nonzeros", "deflated", "that file, zlib level 9", "accuracy", "latency  not measured", "error bound"):
        assert text in done.out
    for layer in read(folder / "run").layers:
        assert f"{layer.error:.3g}" in done.out
        assert layer.bound is not None
        assert (f"{layer.bound:.3g} vacuous" in done.out) == (layer.bound >= 1)
    assert "--cut-dead cuts them off" in done.out
    assert max(map(len, report.render(read(folder / "run")).splitlines())) <= 80
    assert "cut ≡ masked" not in done.out
    assert "cut ≡ masked" in command("report", "cut", "--all", cwd=folder).out


def test_a_bound_that_is_not_known_is_called_that(folder: Path) -> None:
    drawn = read(folder / "run")
    drawn.layers[0].bound = None
    drawn.scoring["form"] = "drawn"
    text = " ".join(report.render(drawn, everything=True).split())
    assert "not known" in text
    assert "a chance of 1e-16 to fail where weights were drawn" in text


def test_a_run_that_keeps_everything_is_the_network_that_came_in(folder: Path, tmp_path: Path) -> None:
    run = pfpcli.sparsify(
        folder / "model.pt", folder / "imgs", keep=1, criterion="magnitude", out=tmp_path / "run", threads=1, samples=4
    ).record
    before, after = (
        torch.load(each, weights_only=False).state_dict() for each in (folder / "model.pt", tmp_path / "run/model.pt")
    )
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert run.quality.before == run.quality.after
    assert run.after == run.before


def test_a_run_typed_ends_with_the_figures_and_gets_a_folder_of_its_own(
    folder: Path, tmp_path: Path, command: Callable[..., Done]
) -> None:
    line = ["sparsify", str(folder / "model.pt"), "--calib", str(folder / "imgs"), "--keep", "50%", "--samples", "4"]
    done = command(*line, "--threads", "1", "--criterion", "sipp-hybrid", "--freeze", "0", cwd=tmp_path)
    assert done.code == 0, done.err
    assert done.out.endswith("\nwrote pfp-runs/model-sparse0.50/    next: pfp report\n")
    run = json.loads((tmp_path / "pfp-runs/model-sparse0.50" / FILES["run"]).read_text(encoding="utf-8"))
    assert "0.0" not in [layer["name"] for layer in run["layers"]]
    assert run["settings"]["freeze"] == ["0"]


# --- refusals ------------------------------------------------------------------------------------------------------

REFUSED = {
    "no such criterion": (["--criterion", "snipp"], "--criterion snipp: expected one of sipp, ", "`--criterion snip`"),
    "criterion of channels": (["--criterion", "pfp"], "--criterion pfp: expected one of sipp, ", ""),
    "keep of zero": (["--keep", "0"], "--keep 0: expected a fraction above 0 and at most 1", "two fifths"),
    "keep out of reach": (["--keep", "0.01"], "--keep 0.01: not reachable; ", "use `--keep 0."),
    "delta": (["--delta", "2"], "--delta 2: expected a probability", "1e-9"),
    "no such layer": (["--freeze", "fc"], "--freeze fc: matches none of the ", "layers are named like"),
    "everything frozen": (["--freeze", "*"], "nothing can be sparsified: ", "fewer layers"),
    "flag of compress": (["--keep-of", "macs"], "--keep-of: no such option of pfp sparsify", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_one_line_and_leaves_nothing(
    name: str, folder: Path, tmp_path: Path, command: Callable[..., Done]
) -> None:
    flags, message, hint = REFUSED[name]
    done = command("sparsify", str(folder / "model.pt"), "--calib", str(folder / "imgs"), *flags, cwd=tmp_path)
    error = done.err[done.err.index("error: ") :]
    assert (done.code, done.out) == (2, "")
    assert error.startswith(f"error: {message}")
    assert error.count("\n") <= 3
    assert hint in error.partition("hint: ")[2]
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_budget_that_is_named_can_be_reached() -> None:
    with pytest.raises(BudgetError) as refused:
        sparsified("wide", "magnitude", 0.001)
    least = float(refused.value.hint.split("`--keep ")[1].split("`")[0])
    assert nonzeros(sparsified("wide", "magnitude", least).graph) > 0


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no layer with weights reads channels"):
        sparsified(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Flatten()), "magnitude")


def test_a_record_without_a_kind_is_one_of_a_compression(folder: Path, tmp_path: Path) -> None:
    old = json.loads(run().json())
    del old["kind"]
    (tmp_path / "run.json").write_text(json.dumps(old), encoding="utf-8")
    assert reading.read(tmp_path).json() == run().json()
    data = json.loads((folder / "run" / FILES["run"]).read_text(encoding="utf-8"))
    (tmp_path / "run.json").write_text(json.dumps(data | {"kind": "other"}), encoding="utf-8")
    with pytest.raises(pfpcli.PfpError, match="not a run record"):
        reading.read(tmp_path)

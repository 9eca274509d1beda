"""Which single weights stay, the bounds of the layers and the channels that no layer reads any more."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from commands import plain
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import cut
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.graph.graph import Graph
from pfpcli.graph.role import Role
from pfpcli.graph.trace import trace
from pfpcli.outputs.losses import per_sample_loss
from pfpcli.planning.planner import without
from pfpcli.scoring.criteria import WEIGHT_CRITERIA
from pfpcli.sparsity.choose import Chosen, choose
from pfpcli.sparsity.weight_scores import _gradients, score_weights
from pfpcli.sparsity.weights import Amount, Weights, amount_of, nonzeros, weights_of
from pfpcli.sparsity.zeroing import dead_channels, dead_units, layer_errors, zero_weights
from properties import difference
from zoo import ZOO, Calls

DETERMINISTIC = [name for name, criterion in WEIGHT_CRITERIA.items() if criterion.form == "largest"]
DRAWN = [name for name in WEIGHT_CRITERIA if name not in DETERMINISTIC]


@dataclass(frozen=True)
class Sparse:
    """A network whose weights were chosen, without a run folder."""

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


# --- the weights that stay -------------------------------------------------------------------------------------------


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


# --- errors and bounds -----------------------------------------------------------------------------------------------

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


# --- gradients -------------------------------------------------------------------------------------------------------


def test_the_loss_is_taken_against_labels_or_decisions_or_of_squares() -> None:
    scores = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    own = F.cross_entropy(scores, scores.argmax(1), reduction="none")
    number, logits = Role(0, "a", "regression", None, ""), Role(1, "b", "logits", 1, "")
    torch.testing.assert_close(per_sample_loss([torch.ones(4), scores], [number, logits], None), 0.5 + own)
    expected = F.cross_entropy(scores, torch.tensor([0, 4, 2, 1]), reduction="none")
    torch.testing.assert_close(per_sample_loss([scores], [logits], np.array([0, 4, 2, 1])), expected)
    torch.testing.assert_close(
        per_sample_loss([scores], [logits], np.array([0, 4, 2, 9])), own
    )  # there is no tenth class
    maps = scores.view(2, 5, 2)
    expected = F.cross_entropy(maps, maps.argmax(1), reduction="none").mean(1)
    torch.testing.assert_close(per_sample_loss([maps], [logits], np.array([1, 2])), expected)


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


def test_the_smallest_budget_that_is_named_can_be_reached() -> None:
    with pytest.raises(BudgetError) as refused:
        sparsified("wide", "magnitude", 0.001)
    least = float(refused.value.hint.split("`--keep ")[1].split("`")[0])
    assert nonzeros(sparsified("wide", "magnitude", least).graph) > 0


def test_a_network_without_weights_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no layer with weights reads channels"):
        sparsified(nn.Sequential(nn.Conv2d(3, 3, 3, groups=3), nn.Flatten()), "magnitude")

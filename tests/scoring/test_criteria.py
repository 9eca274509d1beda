"""Criteria: each measures what its paper says, on the same channels as all others."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.errors import UnsupportedError
from pfpcli.graph.trace import from_program
from pfpcli.scoring.criteria import CRITERIA, ensembles
from pfpcli.scoring.criteria.activations import removal_order
from pfpcli.scoring.criteria.sensitivity import sensitivity
from pfpcli.scoring.score import score
from tasks import first, grouped, linear, of_zoo, scored, task
from zoo import ZOO, Calls

#: Criteria with scores of their own; pfp-rand and pfp-mixed have those of pfp.
DISTINCT = [name for name in CRITERIA if not name.startswith("pfp-")]
SEEDED = {"random", "thinet", "lfe"}
WITHOUT_BATCH_NORM = {"linear_to_map", "frozen_batch_norm", "weight_standardised", "attention", "biased_attention"}
OTHERS = [name for name in ZOO if len(ZOO[name].inputs) == 1]


@pytest.fixture(autouse=True)
def few_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ensembles, "MASKS", 1)
    monkeypatch.setattr(ensembles, "FEWEST", 16)


# All criteria -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OTHERS)
def test_every_criterion_scores_every_unit_that_is_read_and_no_other(name: str) -> None:
    groups, images = of_zoo(name)
    found = readers(groups)
    read = np.unique(np.concatenate([np.r_[reader.units, reader.heads] for reader in found]))
    for criterion in DISTINCT:
        labels = torch.arange(5) % 2 if criterion in ("taylor", "lfe") and len(name) % 2 else None
        if criterion == "bn" and name in WITHOUT_BATCH_NORM:
            with pytest.raises(UnsupportedError, match="no prunable channel has a batch norm"):
                scored(criterion, groups, images)
            continue
        scores = scored(criterion, groups, images, labels=labels)
        assert np.flatnonzero(np.isfinite(scores.unit)).tolist() == read[read > 0].tolist()


@pytest.mark.parametrize("name", ["concat", "grouped", "attention"])
def test_the_sensitivity_of_pfp_is_left_as_it_is(name: str) -> None:
    groups, images = of_zoo(name)
    given = task(groups, [images])
    np.testing.assert_array_equal(score("pfp", given).unit, sensitivity(given).unit)


def test_a_head_has_the_sum_of_what_it_owns_if_the_criterion_knows_no_better() -> None:
    groups, images = of_zoo("attention")
    scores = scored("l1", groups, images)
    assert groups.owned
    for head, owned in groups.owned.items():
        np.testing.assert_allclose(scores.unit[head], np.nansum(scores.unit[owned]))


@pytest.mark.parametrize("criterion", DISTINCT)
@pytest.mark.parametrize("name", ["residual", "attention"])
def test_the_order_of_images_and_the_size_of_batches_do_not_matter(criterion: str, name: str) -> None:
    if criterion == "bn" and name == "attention":
        return
    groups, images = of_zoo(name)
    ways = [[images], images.flip(0).split(2)]
    one, other = [scored(criterion, groups, *way).unit for way in ways]
    np.testing.assert_allclose(other, one, rtol=1e-3, atol=1e-5 * np.nanmax(np.abs(one)))


@pytest.mark.parametrize("criterion", DISTINCT)
def test_the_same_seed_gives_the_same_scores_and_only_chance_depends_on_it(criterion: str) -> None:
    groups, images = of_zoo("concat")
    one, same, other = [scored(criterion, groups, images, seed=seed).unit for seed in (1, 1, 2)]
    np.testing.assert_allclose(same, one, rtol=1e-9)  # a solver may round otherwise
    assert np.array_equal(one, other, equal_nan=True) != (criterion in SEEDED)


@pytest.mark.parametrize("criterion", [name for name in DISTINCT if name not in SEEDED])
def test_permuting_channels_permutes_their_scores(criterion: str) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(1))
    net[1].weight.data.uniform_(0.5, 1.5)
    images = torch.randn(4, 3, 8, 8)
    before = first(groups := grouped(net, images[:2]), scored(criterion, groups, images))
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    for tensor in (net[0].weight, net[0].bias):
        tensor.data = tensor.data[order]
    net[1].load_state_dict({name: t[order] if t.dim() else t for name, t in net[1].state_dict().items()})
    net[3].weight.data = net[3].weight.data[:, order]
    after = first(groups := grouped(net, images[:2]), scored(criterion, groups, images))
    np.testing.assert_allclose(after, np.asarray(before)[order.numpy()], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("criterion", ["taylor", "lfe", "thinet"])
def test_a_network_that_fixes_its_batch_size_is_scored(criterion: str) -> None:
    torch.manual_seed(0)
    net, example = linear(torch.randn(5, 6).tolist(), torch.randn(3, 5).tolist()).eval(), (torch.randn(2, 6),)
    groups = group(label(from_program(torch.export.export(net, example), example)))
    assert not groups.labelled.graph.dynamic
    assert np.isfinite(first(groups, scored(criterion, groups, torch.randn(2, 6), torch.randn(2, 6)))).all()


# Weights ----------------------------------------------------------------------------------------------------------


def test_l1_and_l2_are_the_norms_of_the_filters() -> None:
    groups = grouped(linear([[3.0, -4.0], [1.0, 0.0], [0.0, 2.0]], [[1.0, 1.0, 1.0]]), torch.randn(2, 2))
    assert first(groups, scored("l1", groups)) == [7, 1, 2]
    assert first(groups, scored("l2", groups)) == [5, 1, 2]


def test_what_several_layers_make_has_the_norm_of_all_its_filters() -> None:
    net = Calls(lambda m, x: m.out(m.a(x) + m.b(x)), a=nn.Linear(1, 2), b=nn.Linear(1, 2), out=nn.Linear(2, 1))
    net.a.weight.data, net.b.weight.data = torch.tensor([[3.0], [1.0]]), torch.tensor([[-4.0], [2.0]])
    groups = grouped(net, torch.randn(2, 1))
    assert first(groups, scored("l1", groups)) == [7, 3]
    np.testing.assert_allclose(first(groups, scored("l2", groups)), [5, 5**0.5], rtol=1e-5)


def test_weights_that_are_used_twice_count_once() -> None:
    groups, _ = of_zoo("shared")
    weight = ZOO["shared"].module().twice[0].weight.detach()
    stem = ZOO["shared"].module().stem[0].weight.detach()
    found = scored("l1", groups).of(groups.prunable[0])
    np.testing.assert_allclose(found, (weight.abs().sum((1, 2, 3)) + stem.abs().sum((1, 2, 3))).numpy(), rtol=1e-5)


def test_a_map_made_by_a_linear_layer_has_the_filters_of_all_its_positions() -> None:
    groups, _ = of_zoo("linear_to_map")
    rows = ZOO["linear_to_map"].module().fc.weight.detach().abs().sum(1).view(6, 16).sum(1)
    np.testing.assert_allclose(scored("l1", groups).of(groups.prunable[0]), rows.numpy(), rtol=1e-5)


def test_the_filters_of_a_transposed_and_grouped_convolution_are_told_apart() -> None:
    groups, _ = of_zoo("grouped_transposed")
    weight = ZOO["grouped_transposed"].module()[1].weight.detach()  # [8, 12 / 2, 3, 3]
    found = scored("l1", groups).of(groups.prunable[1])
    np.testing.assert_allclose(found, weight.view(2, 4, 6, 9).abs().sum((1, 3)).flatten().numpy(), rtol=1e-5)


def test_fpgm_gives_up_the_filter_that_is_nearest_to_all_others() -> None:
    groups = grouped(linear([[0.0, 0.0], [3.0, 4.0], [6.0, 8.0], [9.0, 12.0]], [[1.0] * 4]), torch.randn(2, 2))
    assert first(groups, scored("fpgm", groups)) == [30, 20, 20, 30]
    assert first(groups, scored("l2", groups)) == [0, 5, 10, 15]


def test_bn_is_the_absolute_scale_of_the_batch_norm() -> None:
    net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    net[1].weight.data = torch.tensor([0.5, -2.0, 0.0])
    groups = grouped(net, torch.randn(2, 1, 4, 4))
    scores = scored("bn", groups)
    assert first(groups, scores) == [0.5, 2, 0]
    assert scores.remarks == ()


def test_bn_says_where_there_is_none() -> None:
    groups, _ = of_zoo("se_gate")
    scores = scored("bn", groups)
    assert scores.remarks == ("no batch norm on 1 of 2 groups (gate.1): criterion l1 decided there",)
    gate = next(g for g in groups.prunable if g.name == "gate.1")
    np.testing.assert_array_equal(scores.of(gate), scored("l1", groups).of(gate))


# Activations ------------------------------------------------------------------------------------------------------


def test_activation_is_the_mean_of_what_is_read() -> None:
    groups = grouped(linear([[1.0], [-2.0], [3.0]], [[1.0, 1.0, 1.0]]), torch.randn(2, 1))
    assert first(groups, scored("activation", groups, torch.tensor([[1.0], [-2.0]]))) == [0.5, 2, 1.5]


def test_activation_of_a_flattened_map_is_the_mean_over_its_positions() -> None:
    groups, images = of_zoo("flatten_linear")
    with torch.no_grad():
        read = ZOO["flatten_linear"].module()[0](images)
    found = scored("activation", groups, images).of(groups.prunable[0])
    np.testing.assert_allclose(found, read.mean((0, 2, 3)).numpy(), rtol=1e-5)


def test_weights_that_read_a_channel_count_with_its_activation() -> None:
    groups = grouped(linear([[1.0], [2.0]], [[3.0, -1.0], [4.0, 0.0]]), torch.randn(2, 1))
    rms = 2.5**0.5  # of 1 and 2
    found = first(groups, scored("weight-activation", groups, torch.tensor([[1.0], [2.0]])))
    np.testing.assert_allclose(found, [7 * rms, 2 * rms], rtol=1e-4)


def test_thinet_removes_the_set_that_changes_the_least() -> None:
    # contributions to one output: 2, -2, 1 and 5; the first two cancel, which no score of single channels can see
    gram = np.outer([2.0, -2.0, 1.0, 5.0], [2.0, -2.0, 1.0, 5.0])
    assert removal_order(gram).tolist() == [2, 1, 0, 3]  # 1, then 1 - 2 = -1, then 1 - 2 + 2 = 1, then the rest


def test_thinet_keeps_what_it_would_remove_last() -> None:
    net = linear([[2.0], [2.0], [1.0], [5.0]], [[1.0, -1.0, 1.0, 1.0]])
    groups = grouped(net, torch.rand(2, 1))
    assert first(groups, scored("thinet", groups, torch.rand(8, 1) + 0.5)) == [0.75, 0.5, 0.25, 1]


# Gradients and ensembles ------------------------------------------------------------------------------------------


def test_taylor_is_the_change_of_the_loss_but_for_its_curvature() -> None:
    net = linear([[1.0], [2.0], [-1.0]], [[0.5, 0.25, 2.0]], between=nn.Identity)
    x = torch.tensor([[1.0], [3.0], [-2.0]])
    groups = grouped(net, x[:2])
    added = x * torch.tensor([[0.5, 0.5, -2.0]])
    whole = added.sum(1, keepdim=True)
    change = (whole - added).square() / 2 - whole.square() / 2  # the loss is half the square of the output
    expected = (change - added.square() / 2).abs().mean(0)
    np.testing.assert_allclose(first(groups, scored("taylor", groups, x)), expected.numpy(), rtol=1e-4)


def test_taylor_follows_the_labels() -> None:
    groups = grouped(linear([[1.0], [1.0]], [[1.0, 0.0], [0.0, 1.0]]), torch.rand(2, 1))
    x, labels = torch.full((2, 1), 2.0), torch.tensor([0, 1])
    np.testing.assert_allclose(first(groups, scored("taylor", groups, x, labels=labels)), [1, 1], rtol=1e-4)


def test_everything_a_channel_is_read_by_counts_in_taylor() -> None:
    net = Calls(lambda m, x: m.a(y := m.hidden(x)) - m.b(y), hidden=nn.Linear(2, 4), a=nn.Linear(4, 3))
    net.b = net.a  # what one takes away the other gives back
    groups = grouped(net, torch.randn(2, 2))
    np.testing.assert_allclose(scored("taylor", groups, torch.randn(4, 2)).of(groups.prunable[0]), 0, atol=1e-6)

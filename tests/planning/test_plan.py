"""Budgets: met exactly, met as closely as can be, or refused with the smallest one that can be met."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import cache
from unittest.mock import Mock

import numpy as np
import pytest
import torch

import reference
from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.graph.invariant import InvariantError
from pfpcli.graph.trace import trace
from pfpcli.planning.allocators import Evidence, least_distance
from pfpcli.planning.choices import Choice, is_small, multiples, natural_multiple
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Budget, Plan, everything
from pfpcli.planning.select import SELECTIONS
from pfpcli.scoring.scores import Scores
from planned import plan
from tasks import scores as score
from traced import grouped
from zoo import ZOO, Net, conv, head

#: Wide enough for a budget to be met within half a percent.
WIDE = Net(lambda: torch.nn.Sequential(conv(3, 64), conv(64, 96), conv(96, 64), head(64)), ((3, 8, 8),))


@cache
def scored(name: str) -> tuple[Groups, Scores]:
    net = WIDE if name == "wide" else ZOO[name]
    groups = group(label(trace(net.module(), net.example()))) if name == "wide" else grouped(name)
    if len(net.inputs) > 1:
        rng = np.random.default_rng(0)
        return groups, Scores(rng.random(len(groups.root)))
    return groups, score(groups, [net.example(batch=8, seed=1)[0]])


def make(name: str, keep: float, **settings: object) -> Plan:
    return plan(*scored(name), Budget(keep, **settings))  # type: ignore[arg-type]


@pytest.mark.parametrize("of", ["params", "macs"])
@pytest.mark.parametrize("keep", [0.9, 0.7, 0.4, 0.15])
def test_a_budget_is_met_within_half_a_percent(keep: float, of: str) -> None:
    made = make("wide", keep, of=of)
    assert made.is_met
    assert abs(made.achieved - keep) <= 0.005 * keep
    assert made.achieved == getattr(made.after, of) / getattr(made.before, of)


def test_a_smaller_budget_never_costs_more() -> None:
    costs = [make("wide", keep).after.params for keep in np.linspace(0.99, 0.05, 40)]
    assert costs == sorted(costs, reverse=True)


def test_keeping_everything_is_the_identity() -> None:
    made = make("wide", 1.0)
    assert made.alive.all()
    assert made.after == made.before


@pytest.mark.parametrize("name", ZOO)
def test_no_dimension_of_any_tensor_loses_all_its_channels(name: str) -> None:
    groups, scores = scored(name)
    if not any(reader.units.any() for reader in readers(groups)):
        return
    smallest = _smallest(groups, scores)
    assert all(smallest.alive[vector].any() for vector in Predictor(groups).vectors)


def allocator(scores: Scores) -> str:
    return "pfp" if scores.layers else "uniform"


def _smallest(groups: Groups, scores: Scores) -> Plan:
    try:
        return plan(groups, scores, Budget(1e-9), allocate=allocator(scores))
    except BudgetError as error:
        least = float(error.hint.split()[2].strip("`"))
    return plan(groups, scores, Budget(least), allocate=allocator(scores))


def test_the_highest_scores_stay() -> None:
    groups, scores = scored("wide")
    made = plan(groups, scores, Budget(0.4))
    for each in groups.prunable:
        stays = made.alive[each.units]
        assert scores.of(each)[stays].min() >= scores.of(each)[~stays].max()


def test_equal_scores_are_settled_by_the_lower_index() -> None:
    groups, _ = scored("wide")
    made = plan(groups, Scores(np.full(len(groups.root), 0.5)), Budget(0.4), allocate="uniform")
    for each in groups.prunable:
        stays = made.alive[each.units]
        assert stays[: stays.sum()].all()


def test_widths_are_multiples() -> None:
    made = make("wide", 0.4, multiple_of=8)
    assert all(count % 8 == 0 for count, g in zip(made.kept, made.groups.groups, strict=True) if not g.frozen)
    assert abs(made.achieved - 0.4) < 0.03


@pytest.mark.parametrize("keep", [0.8, 0.4])
def test_widths_that_run_well_are_the_default_as_long_as_the_budget_is_met(keep: float) -> None:
    # behind a pooling, since a network is tried on large images too
    layers = torch.nn.AvgPool2d(4), conv(3, 64), conv(64, 256), conv(256, 256), conv(256, 128), head(128)
    net = Net(lambda: torch.nn.Sequential(*layers), ((3, 8, 8),))
    groups = group(label(trace(net.module(), net.example())))
    scores = Scores(np.linspace(0, 1, len(groups.root)))
    made = plan(groups, scores, Budget(keep, multiple_of=None), allocate="uniform")
    assert made.is_met
    assert all(count % 8 == 0 for count, g in zip(made.kept, groups.groups, strict=True) if not g.frozen)


def test_widths_that_run_well_yield_to_the_budget() -> None:
    net = Net(lambda: torch.nn.Sequential(conv(3, 512), head(512)), ((3, 8, 8),))
    groups = group(label(trace(net.module(), net.example())))
    scores = Scores(np.linspace(0, 1, len(groups.root)))
    stepped, free = (plan(groups, scores, Budget(0.3, multiple_of=each), allocate="uniform") for each in (8, None))
    assert free.is_met
    assert not stepped.is_met


@pytest.mark.parametrize(("channels", "multiple"), [(15, 1), (16, 4), (63, 4), (64, 8), (512, 8)])
def test_narrow_groups_have_smaller_multiples(channels: int, multiple: int) -> None:
    assert natural_multiple(channels) == multiple


def test_groups_of_small_networks_keep_multiples_of_8_where_latency_counts_alone() -> None:
    groups, _ = scored("wide")
    assert is_small(groups)
    assert max(multiples(groups, Budget(0.5, "macs", multiple_of=None))) == 4
    assert max(multiples(groups, Budget(0.5, "latency", multiple_of=None))) == 8


@pytest.mark.parametrize("price", [0.4, 0.6])
def test_a_group_keeps_the_width_that_is_best_of_those_that_are_allowed(price: float) -> None:
    # the loss falls by 1 with each channel up to 9, then hardly: the best of all widths is 9, rounded up 16
    loss = np.maximum(9.0 - np.arange(17), 0) + np.maximum(16.0 - np.arange(17), 0) / 100
    curve = Mock(spec=Curve, at_every_width=lambda of: loss)
    group = Mock(readers=[1])
    order = np.arange(16)[:, None]
    choice = Choice(group, order, np.zeros(16), protected=0, least=1, step=8)
    counts = least_distance([choice], Evidence(Scores(np.zeros(16)), 0.1, [curve], [price]))
    assert choice.widths.tolist() == [8, 16]
    assert counts(1.0) == [8]


def test_the_nearest_width_is_above_or_below() -> None:
    choice = Choice(Mock(), np.arange(30)[:, None], np.zeros(30), protected=0, least=5, step=8)
    assert choice.widths.tolist() == [8, 16, 24, 30]
    assert [choice.nearest(count) for count in (0, 11.9, 12.1, 26, 28, 99)] == [8, 8, 16, 24, 30, 30]


def test_groups_keep_the_fewest_channels_that_were_asked_for() -> None:
    made = make("wide", 0.3, min_channels=20)
    assert min(count for count, g in zip(made.kept, made.groups.groups, strict=True) if not g.frozen) >= 20


def test_an_unreachable_budget_is_refused_with_the_one_that_can_be_reached() -> None:
    with pytest.raises(BudgetError, match=r"--keep 1e-05: not reachable; .* keeps 0\.\d+ of the parameters") as caught:
        make("wide", 1e-5)
    least = float(caught.value.hint.split()[2].strip("`"))
    assert abs(make("wide", least).achieved - least) < 0.05 * least  # widths are whole numbers


def test_a_budget_between_two_plans_is_met_as_closely_as_can_be() -> None:
    made = make("plain", 0.5)
    groups, _ = scored("plain")
    predictor = Predictor(groups)
    for each in groups.prunable:  # no single channel more or less would be closer on the same error
        assert 1 <= made.kept[groups.groups.index(each)] <= len(each.units)
    assert predictor.predict(made.alive) == made.after
    assert abs(made.achieved - 0.5) < 0.05


def test_nothing_to_prune_is_an_error_that_says_why() -> None:
    groups = group(label(trace(ZOO["plain"].module(), ZOO["plain"].example())), freeze=["*"])
    nothing = Scores(np.full(len(groups.root), np.nan))
    with pytest.raises(UnsupportedError, match=r"nothing can be pruned: .*--freeze \*"):
        plan(groups, nothing, Budget(0.5))


def test_scores_do_not_depend_on_the_order_or_the_size_of_batches() -> None:
    groups, _ = scored("residual")
    images = ZOO["residual"].example(batch=12, seed=3)[0]
    ways = [[images], list(images.split(5)), list(images.flip(0).split(1))]
    first, *others = [score(groups, way).unit for way in ways]
    assert np.nanmax(first) > 0
    for other in others:
        np.testing.assert_allclose(other, first, rtol=2e-5)


@pytest.mark.parametrize(
    "name", ["residual", "grouped", "concat", "conv1d", "pixel_shuffle", "grouped_transposed", "shared"]
)
def test_scoring_gives_what_the_definition_gives_one_image_and_one_output_at_a_time(name: str) -> None:
    groups, _ = scored(name)
    images = ZOO[name].example(batch=3, seed=2)[0]
    expected = reference.sensitivities(groups, images)
    found: dict[str, np.ndarray] = {}
    for layer in score(groups, [images]).layers:
        if layer.has_weights:
            found[layer.name] = np.maximum(layer.channels, found.get(layer.name, 0))
    assert set(found) == set(expected)
    for layer, values in expected.items():
        np.testing.assert_allclose(found[layer], values.numpy(), rtol=2e-5, atol=0, err_msg=layer)


def test_a_unit_that_is_read_as_a_flattened_map_has_one_share() -> None:
    groups, scores = scored("flatten_linear")
    first = next(g for g in groups.prunable if g.name == "0.0")
    net = ZOO["flatten_linear"]
    module = net.module()
    with torch.no_grad():
        read = module[0](net.example(batch=8, seed=1)[0])
    weight = module[2].weight.detach().view(10, 6, 16)
    terms = torch.stack([weight.clamp(min=0), (-weight).clamp(min=0)])[:, None] * read.flatten(2)[None, :, None]
    shares = terms.sum(-1) / terms.sum((-1, -2)).unsqueeze(-1)
    np.testing.assert_allclose(scores.of(first), shares.nan_to_num().amax((0, 1, 2)).numpy(), rtol=2e-5)


# --- the check of a plan ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, net in ZOO.items() if len(net.inputs) == 1])
def test_every_plan_fits_its_groups(name: str) -> None:
    groups, scores = scored(name)
    for select in SELECTIONS:
        with contextlib.suppress(BudgetError, UnsupportedError):
            plan(groups, scores, Budget(0.6), allocate=allocator(scores), select=select).check()
    everything(groups, Predictor(groups), Budget()).check()


def changed(made: Plan, **arrays: tuple[object, object]) -> Plan:
    """The plan with some entries of its arrays changed: (indices, values) of each."""
    copies = {name: getattr(made, name).copy() for name in arrays}
    for name, (at, value) in arrays.items():
        copies[name][at] = value
    return replace(made, **copies)


def broken_plans() -> dict[str, tuple[Plan, str]]:
    """A plan for each rule that a plan can break, and the message."""
    made, (groups, _) = make("wide", 0.4), scored("wide")
    first, (frozen,) = groups.prunable[0], [group for group in groups.groups if group.frozen][-1:]
    kept = made.kept[groups.groups.index(first)]
    unit = next(unit for unit in first.units if made.alive[unit])
    whole = groups.root == unit
    label = np.flatnonzero(whole & (np.arange(len(whole)) != unit))[0]
    more = tuple(count + (group is first) for count, group in zip(made.kept, groups.groups, strict=True))
    fewer = tuple(count - (group is frozen) for count, group in zip(made.kept, groups.groups, strict=True))
    all_of_first = np.isin(groups.root, first.units)
    none = tuple(0 if group is first else count for count, group in zip(made.kept, groups.groups, strict=True))
    attention, _ = scored("attention")
    head, owned = next(iter(attention.owned.items()))
    headless = everything(attention, Predictor(attention), Budget())
    named = f"group {first.name}"
    return {
        "label 0": (
            changed(made, alive=(0, False)),
            "label 0 stands for channels that cannot be dropped: found dropped",
        ),
        "labels of a unit": (changed(made, alive=(label, False)), f"{named}: alive of label {label}: found False"),
        "scales of a unit": (changed(made, scale=(label, 2.0)), f"{named}: scale of label {label}: found 2.0"),
        "units of a head": (
            changed(headless, alive=(attention.root == head, False)),
            f"head {head}: found {len(owned)} kept units, expected 0",
        ),
        "kept positions": (
            replace(made, kept=more),
            f"{named}: found {kept} kept units in a part, expected {kept + 1}",
        ),
        "frozen group": (
            replace(made, kept=fewer),
            f"group {frozen.name} is frozen: found {frozen.positions - 1} kept positions, expected {frozen.positions}",
        ),
        "scale": (changed(made, scale=(whole, 2.0)), f"{named} was not sampled: found scale 2.0, expected 1"),
        "tensor": (
            replace(changed(made, alive=(all_of_first, False)), kept=none),
            f"{named}: found no kept channel in a dimension of a tensor, expected 1",
        ),
        "costs before": (replace(made, before=made.after), r"costs before: found Costs\(params="),
        "costs after": (replace(made, after=made.before), r"costs after: found Costs\(params="),
    }


@pytest.mark.parametrize(
    "rule",
    [
        "label 0", "labels of a unit", "scales of a unit", "units of a head", "kept positions", "frozen group", "scale",
        "tensor", "costs before", "costs after",
    ],
)  # fmt: skip
def test_a_plan_that_breaks_a_rule_is_refused(rule: str) -> None:
    made, message = broken_plans()[rule]
    with pytest.raises(InvariantError, match=message):
        made.check()

"""The best of several plans is the one whose network was measured to be the best."""

from __future__ import annotations

from collections.abc import Callable
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.channels.cost import Predictor
from pfpcli.planning import portfolio
from pfpcli.planning.allocations import TRIED
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.planner import Planner
from pfpcli.planning.portfolio import TOWARDS, Tried, moved, try_plans
from residual_net import measured
from tasks import grouped, scores
from zoo import conv


def planner(keep: float = 0.5) -> Planner:
    groups, found, made = measured()
    return Planner(groups, found, Budget(keep, "macs"), curves=made)


def tried(measure: Callable[[Plan], float]) -> list[Tried]:
    return try_plans(planner(), TRIED, measure)


@pytest.fixture
def all_have_hope(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(portfolio, "HOPELESS", float("inf"))


@pytest.mark.usefixtures("all_have_hope")
@pytest.mark.parametrize("wanted", TRIED)
def test_the_plan_whose_network_loses_least_comes_first(wanted: str) -> None:
    best = planner().by(wanted)
    found = tried(lambda plan: float(plan.kept != best.kept))
    assert found[0].plan.kept == best.kept
    assert [each.loss for each in found] == sorted(each.loss for each in found)


@pytest.mark.usefixtures("all_have_hope")
def test_plans_between_the_best_and_the_others_are_tried_while_they_help() -> None:
    uniform = planner().by("uniform").kept

    def distance(plan: Plan) -> float:  # the best plan lies a little beside the uniform one
        wanted = [kept + 0.3 * (i % 2) for i, kept in enumerate(uniform)]
        return sum((kept - each) ** 2 for kept, each in zip(plan.kept, wanted, strict=True)) or 1e-9

    found = tried(distance)
    between = [each for each in found if each.name == "between"]
    assert between
    assert len(found) <= len(TRIED) + TOWARDS
    assert all(each.plan.is_met or abs(each.plan.achieved - 0.5) < 0.03 for each in found)


def test_a_plan_between_others_keeps_the_proportions_of_its_widths_for_another_budget() -> None:
    half, less = planner(), planner(0.4)
    between = half.between(half.by("uniform"), half.by("distance"), 0.5)
    found = moved(less, Tried("between", 0.1, between))
    assert found.achieved == pytest.approx(0.4, rel=0.06)
    factor = sum(found.kept) / sum(between.kept)
    assert factor < 1
    assert found.kept == pytest.approx([factor * n for n in between.kept], abs=2)
    assert less.by("distance").kept != pytest.approx([factor * n for n in between.kept], abs=2)


@pytest.mark.parametrize("allocation", TRIED)
def test_a_plan_of_an_allocation_is_made_by_it_again_for_another_budget(allocation: str) -> None:
    assert (
        moved(planner(0.4), Tried(allocation, 0.1, planner().by(allocation))).kept == planner(0.4).by(allocation).kept
    )


@pytest.mark.parametrize("loss", ["distance", "divergence"])
def test_widths_can_be_priced_by_another_cost_than_that_of_the_budget(loss: str) -> None:
    # most multiply-adds are in the layers on large maps, most parameters in those on small ones
    net = nn.Sequential(conv(3, 32), conv(32, 32), conv(32, 64, s=4), conv(64, 64), conv(64, 8))
    groups = grouped(net.requires_grad_(False), torch.randn(2, 3, 16, 16))
    found = scores(groups, [torch.randn(4, 3, 16, 16)], "l2")
    lost = {loss: np.array([0.01, 0.1])}
    made = [Curve(len(order), np.array([3, 1]) * len(order) // 4, lost) for _, order in orders(groups, found, Budget())]

    def by(name: str, of: str) -> Plan:
        return Planner(groups, found, Budget(0.5, of), curves=made).by(name)

    assert by(f"macs-{loss}", "macs").kept == by(loss, "macs").kept
    by_macs, by_params = by(f"macs-{loss}", "params"), by(loss, "params")
    assert by_macs.after.params == pytest.approx(by_params.after.params, rel=0.06)
    assert by_macs.after.macs < 0.9 * by_params.after.macs


def test_widths_can_be_priced_by_the_numbers_that_are_written_as_well() -> None:
    # layers of few channels on a large map: few multiply-adds for each number that they write
    net = nn.Sequential(conv(3, 16, k=1), conv(16, 16, k=1), conv(16, 64, k=1, s=4), conv(64, 64), conv(64, 8))
    groups = grouped(net.requires_grad_(False), torch.randn(2, 3, 16, 16))
    found = scores(groups, [torch.randn(4, 3, 16, 16)], "l2")
    lost = {"distance": np.array([0.01, 0.1])}
    made = [Curve(len(order), np.array([3, 1]) * len(order) // 4, lost) for _, order in orders(groups, found, Budget())]
    plans = Planner(groups, found, Budget(0.5, "macs"), curves=made)
    by_macs, by_work = plans.by("distance"), plans.by("work-distance")
    assert by_work.after.macs == pytest.approx(by_macs.after.macs, rel=0.06)
    predictor = Predictor(groups)
    assert predictor.work(by_work.alive) < 0.95 * predictor.work(by_macs.alive)


def test_a_plan_whose_groups_lose_far_more_alone_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    plans = planner()
    expected = {name: plans.expected_loss(plans.by(name)) for name in TRIED}
    least = min(expected.values())
    monkeypatch.setattr(portfolio, "HOPELESS", (1 + max(expected.values()) / least) / 2)
    hopeless = {plans.by(name).kept for name in TRIED if expected[name] > portfolio.HOPELESS * least}
    assert hopeless
    assert hopeless.isdisjoint(each.plan.kept for each in tried(lambda _: 1.0) if each.name in TRIED)


def test_one_allocation_needs_no_curves() -> None:
    groups, found, _ = measured()
    only = try_plans(Planner(groups, found, Budget(0.5, "macs")), ["uniform"], lambda _: 1.0)
    assert [each.name for each in only] == ["uniform"]


def test_the_same_plan_is_measured_once() -> None:
    seen: list[tuple[int, ...]] = []

    def measure(plan: Plan) -> float:
        seen.append(plan.kept)
        return 1.0

    tried(measure)
    assert len(seen) == len(set(seen))


def test_a_plan_between_two_plans_has_widths_between_theirs_but_for_the_budget() -> None:
    plans = planner()
    a, b = plans.by("uniform"), plans.by("inside")
    middle = plans.between(a, b, 0.5)
    assert abs(middle.achieved - 0.5) < 0.03
    for low, high, kept in zip(map(min, a.kept, b.kept), map(max, a.kept, b.kept), middle.kept, strict=True):
        assert low - 2 <= kept <= high + 2


def test_inside_leaves_the_others_whole_as_long_as_the_budget_allows() -> None:
    for keep, is_whole in ((0.8, True), (0.1, False)):
        plans = planner(keep)
        made = plans.by("inside")
        others = [
            kept == group.positions
            for group, kept in zip(made.groups.groups, made.kept, strict=True)
            if not group.frozen and group.name not in ("first.0.0", "second.0.0")
        ]
        assert all(others) == is_whole
        assert made.is_met or abs(made.achieved - keep) < 0.03


def test_a_network_without_blocks_has_no_inside() -> None:
    images = torch.randn(8, 6)
    net = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 3))
    groups = grouped(net.requires_grad_(False), images[:2])
    plans = Planner(groups, scores(groups, [images], "l2"), Budget(0.6))
    assert abs(plans.by("inside").achieved - 0.6) < 0.1


def test_a_plan_that_misses_the_budget_by_far_is_not_tried() -> None:
    plans = {"near": plan_that_keeps(0.51), "far": plan_that_keeps(0.74)}
    assert portfolio._near_budget(plans) == {"near": plans["near"]}
    only = {"far": plans["far"]}
    assert portfolio._near_budget(only) == only


def plan_that_keeps(fraction: float) -> Plan:
    """A plan that was asked for half of the parameters."""
    made = Mock(spec=Plan)
    made.achieved, made.budget = fraction, Budget(0.5)
    return made

"""Curves, and the widths that are chosen by them; channels that are eliminated by what cannot be made good."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import traced
from pfpcli.activations.least_squares import damped
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import trace
from pfpcli.planning import allocators
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import MEASURED, Curve, curves
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import plan
from pfpcli.scoring.criteria.elimination import Block, eliminate
from pfpcli.scoring.scores import Scores
from tasks import scores, task
from zoo import conv, head
from zoo_blocks import NETS


def grouped(module: nn.Module, *size: int) -> Groups:
    module.eval().requires_grad_(False)
    return group(label(trace(module, (torch.randn(2, *size),))))


def measured(groups: Groups, images: torch.Tensor, criterion: str = "l1") -> tuple[Scores, list[Curve]]:
    found = scores(groups, images.split(8), criterion)
    ordered = orders(groups, found, Budget())
    return found, curves(task(groups, images.split(8)), ordered, count(groups.labelled.graph).macs)


# --- elimination -----------------------------------------------------------------------------------------------------


def blocks_of(rows: torch.Tensor, weight: torch.Tensor, seats: list[int]) -> list[Block]:
    return [Block(rows.T @ rows / len(rows), weight, torch.tensor(seats))]


def left_over(rows: torch.Tensor, weight: torch.Tensor, stays: list[int]) -> float:
    """The squared error of the best refit, with the same ridge."""
    gram = damped(rows.T @ rows / len(rows), 1e-3)
    gone = [i for i in range(len(gram)) if i not in stays]
    if not stays:
        return float((weight * (gram @ weight)).sum())
    schur = gram[gone][:, gone] - gram[gone][:, stays] @ torch.linalg.solve(gram[stays][:, stays], gram[stays][:, gone])
    return float((weight[gone] * (schur @ weight[gone])).sum())


def test_the_errors_of_an_elimination_are_those_of_refits_from_scratch() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(50, 6, dtype=torch.float64), torch.randn(6, 3, dtype=torch.float64)
    rows[:, 5] = rows[:, 0] + 0.1 * rows[:, 5]
    order, errors = eliminate(blocks_of(rows, weight, [0, 1, 2, 3, 4, 5]), 6)
    assert sorted(order) == list(range(6))
    for k, error in enumerate(errors):
        stays = [i for i in range(6) if i not in order[: k + 1]]
        assert error == pytest.approx(left_over(rows, weight, stays), rel=1e-6)
    assert (np.diff(errors) >= 0).all()


def test_each_elimination_is_the_cheapest_there_is() -> None:
    torch.manual_seed(1)
    rows, weight = torch.randn(40, 8, dtype=torch.float64), torch.randn(8, 2, dtype=torch.float64)
    seats = [0, 0, 1, 1, 2, 2, 3, 3]
    order, _ = eliminate(blocks_of(rows, weight, seats), 4)
    left = [0, 1, 2, 3]
    for gone in order[:-1]:
        costs = [left_over(rows, weight, [i for i, s in enumerate(seats) if s in left and s != u]) for u in left]
        assert left[int(np.argmin(costs))] == gone
        left.remove(int(gone))


def test_of_two_channels_that_say_the_same_one_goes_first_and_then_the_other_stays() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))
    with torch.no_grad():
        net[0].weight[4], net[0].bias[4] = 2 * net[0].weight[2], 2 * net[0].bias[2]
    groups = grouped(net, 3, 8, 8)
    found = scores(groups, torch.randn(64, 3, 8, 8).split(16), "obs")
    order = np.argsort(found.unit[groups.prunable[0].units])
    assert len({2, 4} & set(order[:1])) == 1
    assert len({2, 4} & set(order[:2])) == 1


# --- curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", MEASURED)
def test_a_curve_passes_through_what_was_measured_and_never_falls_with_fewer_channels(of: str) -> None:
    losses = {"divergence": np.array([0.01, 0.04, 0.3]), "error": np.array([0.02, 0.01, 0.5])}
    curve = Curve(8, np.array([7, 4, 2]), losses)
    whole = curve.at_every_width(of)
    assert whole.shape == (9,)
    assert whole[8] == 0
    assert (np.diff(whole) <= 0).all()
    np.testing.assert_allclose(whole[[7, 4, 2]], np.maximum.accumulate(losses[of]))


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs) == 1])
def test_every_network_has_curves_and_a_plan_by_them(name: str) -> None:
    groups = traced.grouped(name)
    graph = groups.labelled.graph
    images = torch.randn(16 if graph.dynamic else graph.batch, *NETS[name].inputs[0])
    found = scores(groups, [images], "l1")
    ordered = orders(groups, found, Budget())
    made = curves(task(groups, [images]), ordered, count(graph).macs)
    assert [curve.positions for curve in made] == [len(order) for _, order in ordered]
    for curve in made:
        assert all(np.isfinite(curve.losses[of]).all() for of in MEASURED)
    keep = 0.9
    for allocate in MEASURED:
        planned = plan(groups, found, Budget(keep), allocate=allocate, curves=made)
        uniform = plan(groups, found, Budget(keep), allocate="uniform")
        assert abs(planned.achieved - keep) <= max(0.05, abs(uniform.achieved - keep) + 0.05)


def test_widths_go_where_nothing_is_lost() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(conv(3, 16), conv(16, 16), head(16))
    with torch.no_grad():  # of the second layer's channels, 12 say what the other 4 do
        for i in range(4, 16):
            net[1][0].weight[i] = net[1][0].weight[i % 4]
    groups = grouped(net, 3, 8, 8)
    found, made = measured(groups, torch.randn(64, 3, 8, 8))
    planned = plan(groups, found, Budget(0.6), allocate="divergence", curves=made)
    kept = dict(zip((g.name for g in groups.groups), planned.kept, strict=True))
    names = [group.name for group in groups.prunable]
    assert kept[names[1]] < kept[names[0]]


class Trunk(nn.Module):
    """A trunk that four branches read, each of which reads a group of its own at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 16), head(16)
        self.branches = nn.ModuleList(nn.Sequential(conv(16, 16), nn.Conv2d(16, 16, 3, padding=1)) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            x = x + branch(x)
        return self.last(x)


def test_what_many_layers_read_keeps_more_than_its_curve_alone_would_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    groups = grouped(Trunk(), 3, 8, 8)
    found = scores(groups, [torch.randn(8, 3, 8, 8)], "l1")
    widths = np.arange(15, 0, -1)
    alike = [Curve(16, widths, {"divergence": 1.0 * (16 - widths) ** 2}) for _ in groups.prunable]
    trunk = max(range(len(groups.groups)), key=lambda i: len(groups.groups[i].readers))
    kept = []
    for power in (0.0, 0.5):
        monkeypatch.setattr(allocators, "SPREAD", power)
        kept.append(plan(groups, found, Budget(0.5), allocate="divergence", curves=alike).kept[trunk])
    assert kept[1] > kept[0]

"""Curves, and the widths that are chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import traced
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import trace
from pfpcli.planning import allocators
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import MEASURED, Curve, curves
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import plan
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

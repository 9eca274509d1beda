"""Curves, and the widths that are chosen by them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import traced
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import trace
from pfpcli.planning import allocators
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import MEASURED, Curve, convex, curves
from pfpcli.planning.plan import Budget
from pfpcli.scoring.scores import Scores
from planned import plan
from tasks import scores, task
from zoo import conv, head
from zoo_blocks import NETS


def grouped(module: nn.Module, *size: int) -> Groups:
    module.eval().requires_grad_(False)
    return group(label(trace(module, (torch.randn(2, *size),))))


def measured(groups: Groups, images: torch.Tensor, criterion: str = "l1") -> tuple[Scores, list[Curve]]:
    found = scores(groups, images.split(8), criterion)
    ordered = orders(groups, found, Budget())
    fitted, others = (task(groups, half.split(8)) for half in images.chunk(2))
    return found, curves(fitted, others, ordered, count(groups.labelled.graph).macs)


def test_a_curve_passes_through_what_was_measured_where_that_is_convex() -> None:
    losses = np.array([0.01, 0.04, 0.3])
    whole = Curve(8, np.array([7, 4, 2]), {"distance": losses}).at_every_width("distance")
    assert whole.shape == (9,)
    assert whole[8] == 0
    np.testing.assert_allclose(whole[[7, 4, 2]], losses)


@pytest.mark.parametrize("losses", [[0.02, 0.01, 0.5], [1.0, 1.1, 1.2], [0, 0, 0], [0.1, 3.0, 3.1], [1e-3, 1e-2, 9.0]])
def test_each_channel_more_gains_no_more_than_the_one_before(losses: list[float]) -> None:
    whole = Curve(12, np.array([10, 7, 4]), {"error": np.asarray(losses)}).at_every_width("error")
    gains = -np.diff(whole)
    assert (gains >= 0).all()
    assert (np.diff(gains) <= 1e-12 * gains[:-1]).all()
    assert (whole[[10, 7, 4]] <= np.maximum.accumulate(losses) + 2e-9).all()


@given(st.lists(st.floats(0, 1e6), min_size=2, max_size=30))
def test_the_convex_function_below_values_touches_them_at_both_ends(values: list[float]) -> None:
    found = convex(np.asarray(values))
    assert (found <= np.asarray(values) + 1e-6).all()
    assert found[0] == values[0]
    assert found[-1] == values[-1]
    assert (np.diff(found, 2) >= -1e-6).all()


def test_no_group_is_cut_below_its_measured_widths_while_others_have_room() -> None:
    torch.manual_seed(0)
    groups = grouped(nn.Sequential(conv(3, 16), conv(16, 16), head(16)), 3, 8, 8)
    found = scores(groups, [torch.randn(8, 3, 8, 8)], "l1")
    widths = np.array([14, 8, 4])
    # what the first group loses has saturated, so its sum with the other's loss is least where nothing is left of it
    curves_of = [Curve(16, widths, {"distance": np.array(loss)}) for loss in ([0.9, 1.0, 1.0], [0.1, 2.0, 9.0])]
    planned = plan(groups, found, Budget(0.5), allocate="distance", curves=curves_of)
    assert min(kept for g, kept in zip(groups.groups, planned.kept, strict=True) if not g.frozen) >= 4
    planned = plan(groups, found, Budget(0.1), allocate="distance", curves=curves_of)
    assert abs(planned.achieved - 0.1) < 0.02


class Classifier(nn.Module):
    """A layer of many channels that a linear layer reads, once for each image."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 48), nn.Linear(48, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu())


def test_a_layer_with_fewer_images_than_channels_is_not_thought_to_lose_nothing() -> None:
    torch.manual_seed(0)
    groups = grouped(Classifier(), 8)
    few, others = torch.randn(16, 8), torch.randn(64, 8)
    found = scores(groups, [few], "l1")
    ordered = orders(groups, found, Budget())
    macs = count(groups.labelled.graph).macs
    optimistic, honest = (curves(task(groups, [few]), task(groups, [x]), ordered, macs)[0] for x in (few, others))
    # least squares hits 16 images with 18 channels all but exactly
    some = honest.kept.tolist().index(18)
    assert honest.losses["distance"][some] > 0.05
    assert honest.losses["distance"][some] > 2 * optimistic.losses["distance"][some]
    assert honest.losses["error"][some] > 0.05


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs) == 1])
def test_every_network_has_curves_and_a_plan_by_them(name: str) -> None:
    groups = traced.grouped(name)
    graph = groups.labelled.graph
    images = torch.randn(16 if graph.dynamic else graph.batch, *NETS[name].inputs[0])
    found = scores(groups, [images], "l1")
    ordered = orders(groups, found, Budget())
    made = curves(task(groups, [images]), task(groups, [images]), ordered, count(graph).macs)
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
    planned = plan(groups, found, Budget(0.6), allocate="distance", curves=made)
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

"""Recovery without training: what a cut network gets back by least squares, means and statistics."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.node import Node
from torch.utils._pytree import tree_leaves

from pfpcli.activations.least_squares import Dual, Normal
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.jobs import recover_steps
from pfpcli.recovery import refit, tail
from pfpcli.recovery.batch_norms import Recalibrate
from pfpcli.recovery.lockstep import Lockstep
from pfpcli.recovery.refit import Refit
from properties import random_drop
from zoo import Calls, conv, head
from zoo_blocks import NETS

#: Inputs of a network in these tests.
COUNT = 64


def grouped(module: nn.Module, *size: int) -> Groups:
    module.eval().requires_grad_(False)
    return group(label(trace(module, (torch.randn(2, *size),))))


def dropped(groups: Groups, *units: int) -> Cut:
    """The network without some units of its first prunable group."""
    alive = groups.alive(groups.prunable[0].units[list(units)])
    return cut(groups.labelled, alive)


def recovered(
    kept: Slicing, smaller: Graph, images: Tensor, *visitors: Callable[[Lockstep], Callable[[Node], None]]
) -> None:
    for visitor in visitors:
        pair = Lockstep(Cut(kept, smaller))
        pair.run(dict(enumerate(images.split(16))), visitor(pair))


def means(pair: Lockstep) -> Refit:
    return Refit(pair, weights=False)


def distance(kept: Slicing, smaller: Graph, images: Tensor) -> float:
    """Of the outputs, relative."""
    with torch.no_grad():
        whole, left = (
            torch.cat([x.flatten() for x in tree_leaves(graph.module(images)) if x.is_floating_point()])
            for graph in (kept.labelled.graph, smaller)
        )
    return float((whole - left).norm() / whole.norm())


# --- least squares ---------------------------------------------------------------------------------------------------


def test_the_interpolative_decomposition_of_the_paper_is_a_least_squares_refit() -> None:
    rows = torch.tensor([[1, 0, 1], [0, 1, 1], [1, 1, 2], [2, 1, 3]], dtype=torch.float64)
    weight = torch.tensor([[5.0], [7.0], [11.0]], dtype=torch.float64)
    assert pivots(rows, 2) == [2, 0]
    normal = Normal.empty(1, 2, 1, torch.device("cpu"))
    # the paper keeps the columns 3 and 1 (or 2: they are as long) and comes to T = [[0, 1, 1], [1, -1, 0]]
    ones = rows.new_zeros(4, 1)
    normal.add(torch.cat([rows[:, [2, 0]], ones], 1)[None], (rows @ weight)[None])
    found = normal.solve(weight[[2, 0]][None], 1e-14, intercept=False)[0, :2]
    t = torch.tensor([[0, 1, 1], [1, -1, 0]], dtype=torch.float64)
    torch.testing.assert_close(found, torch.tensor([[18.0], [-2.0]], dtype=torch.float64))
    torch.testing.assert_close(found, t @ weight)
    torch.testing.assert_close(rows[:, [2, 0]] @ found, rows @ weight)


def pivots(rows: Tensor, count: int) -> list[int]:
    """The first pivots of a column-pivoted QR: the columns farthest from what the ones before span."""
    left, found = rows.clone(), []
    for _ in range(count):
        found.append(int(left.norm(dim=0).argmax()))
        q = left[:, found[-1]] / left[:, found[-1]].norm()
        left -= torch.outer(q, q @ left)
    return found


def test_all_channels_kept_leave_the_weights_as_they_are() -> None:
    torch.manual_seed(0)
    rows, weight = torch.randn(9, 3, dtype=torch.float64), torch.randn(3, 2, dtype=torch.float64)
    normal = Normal.empty(1, 3, 2, torch.device("cpu"))
    normal.add(torch.cat([rows, rows.new_ones(9, 1)], 1)[None], (rows @ weight)[None])
    torch.testing.assert_close(normal.solve(weight[None], 1e-3)[0, :3], weight)


@pytest.mark.parametrize("intercept", [True, False])
@pytest.mark.parametrize("count", [4, 30])
def test_rows_give_what_normal_equations_give(count: int, intercept: bool) -> None:
    generator = torch.Generator().manual_seed(count)

    def random(*sizes: int) -> Tensor:
        return torch.randn(2, *sizes, generator=generator, dtype=torch.float64)

    start, dual, others = random(6, 3), Dual([]), Dual([])
    normal, checked = (Normal.empty(2, 6, 3, torch.device("cpu")) for _ in range(2))
    assert all(each.is_empty for each in (dual, normal))
    for i in range(4):
        x, y = torch.cat([random(count, 6) + 1, torch.ones(2, count, 1).double()], 2), random(count, 3)
        for each in (dual, normal) if i < 3 else (others, checked):
            each.add(x, y)
    ridges = [None, 1e-3, 1e-1, 10.0]
    for ridge in ridges:
        found, expected = (each.solve(start, ridge, intercept=intercept) for each in (dual, normal))
        torch.testing.assert_close(found, expected)
    by_rows = dual.errors(others, start, ridges, intercept=intercept)
    by_sums = normal.errors(checked, start, ridges, intercept=intercept)
    constant = sum(float(y.square().sum()) for _, y in others.parts)
    np.testing.assert_allclose(by_rows, np.add(by_sums, constant))
    missed = [(x, random(count, 3)) for x, _ in dual.parts]
    weight = random(7, 3)
    again = [each.after(weight, missed) for each in (dual, normal)]
    found, expected = (each.solve(start, 1e-2, intercept=intercept) for each in again)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("widest", [refit.WIDEST, 1])
def test_a_channel_that_others_make_up_is_recovered_exactly(widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refit, "WIDEST", widest)
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    with torch.no_grad():
        first.weight[3] = first.weight[1] - 2 * first.weight[0]
        first.bias[3] = first.bias[1] - 2 * first.bias[0] + 3
    kept, smaller = dropped(grouped(nn.Sequential(first, second), 6), 3)
    images = torch.randn(COUNT, 6)
    assert distance(kept, smaller, images) > 0.1
    recovered(kept, smaller, images, Refit)
    assert distance(kept, smaller, torch.randn(COUNT, 6)) < 1e-3


def test_a_channel_that_is_always_the_same_is_recovered_by_its_mean() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    with torch.no_grad():
        first.weight[3], first.bias[3] = 0, 2.5
    kept, smaller = dropped(grouped(nn.Sequential(first, nn.ReLU(), second), 6), 3)
    before = smaller.module.get_parameter("2.weight").clone()
    recovered(kept, smaller, torch.randn(COUNT, 6), means)
    assert distance(kept, smaller, torch.randn(COUNT, 6)) < 1e-5
    assert torch.equal(smaller.module.get_parameter("2.weight"), before)


TWINS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "convolution": lambda: (nn.Sequential(twins(nn.Conv2d(3, 6, 3)), nn.ReLU(), nn.Conv2d(6, 5, 3)), (3, 9, 9)),
    "strided": lambda: (nn.Sequential(twins(nn.Conv2d(3, 6, 3)), nn.Conv2d(6, 5, 3, 2, 1)), (3, 9, 9)),
    "batch norm": lambda: (
        nn.Sequential(twins(nn.Conv2d(3, 6, 3)), nn.Conv2d(6, 5, 3, bias=False), nn.BatchNorm2d(5), nn.ReLU()),
        (3, 9, 9),
    ),
    "transposed": lambda: (nn.Sequential(twins(nn.Conv2d(3, 6, 3)), nn.ConvTranspose2d(6, 5, 3, 2, 1)), (3, 9, 9)),
    "flattened": lambda: (nn.Sequential(twins(nn.Conv2d(3, 6, 3)), nn.Flatten(), nn.Linear(96, 5)), (3, 6, 6)),
    "one dimension": lambda: (nn.Sequential(twins(nn.Conv1d(3, 6, 3)), nn.Conv1d(6, 5, 2)), (3, 9)),
}


def twins(layer: nn.Module) -> nn.Module:
    """The last channel is half the first."""
    with torch.no_grad():
        layer.weight[-1], layer.bias[-1] = layer.weight[0] / 2, layer.bias[0] / 2
    return layer


@pytest.mark.parametrize("widest", [refit.WIDEST, 1])
@pytest.mark.parametrize("name", TWINS)
def test_every_kind_of_layer_makes_good_what_a_twin_did(
    name: str, widest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refit, "WIDEST", widest)
    torch.manual_seed(0)
    module, size = TWINS[name]()
    kept, smaller = dropped(grouped(module, *size), 5)
    images, others = torch.randn(4 * COUNT, *size), torch.randn(COUNT, *size)
    assert distance(kept, smaller, others) > 0.02
    recovered(kept, smaller, images, Refit)
    assert distance(kept, smaller, others) < 2e-3


def test_later_layers_correct_what_earlier_ones_changed() -> None:
    torch.manual_seed(0)
    middle = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    net = nn.Sequential(conv(3, 8), conv(8, 8), middle, nn.ReLU(), nn.Conv2d(8, 4, 1))
    groups = grouped(net, 3, 8, 8)
    kept, smaller = dropped(groups, 1, 4, 6)
    images = torch.randn(COUNT, 3, 8, 8)
    depthwise = "2.weight"
    before = smaller.module.get_parameter(depthwise).clone()
    recovered(kept, smaller, images, Refit)
    assert not torch.equal(smaller.module.get_parameter(depthwise), before)


class Blocks(nn.Module):
    """Residual blocks with a batch norm at the end of each branch."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.last = conv(3, 6), nn.Conv2d(6, 4, 1)
        self.inner = nn.ModuleList(nn.Conv2d(6, 10, 3, padding=1) for _ in range(4))
        self.ends = nn.ModuleList(
            nn.Sequential(nn.Conv2d(10, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for inner, end in zip(self.inner, self.ends, strict=True):
            x = x + end(inner(x).relu())
        return self.last(x)


def test_the_end_of_a_residual_branch_makes_good_what_the_other_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    groups = grouped(Blocks(), 3, 8, 8)
    alive = groups.alive(np.concatenate([g.units[:6] for g in groups.prunable if len(g.units) == 10]))
    images = torch.randn(COUNT, 3, 8, 8)
    left = []
    for added in (tail._added, lambda *_: None):
        monkeypatch.setattr(tail, "_added", added)
        kept, smaller = cut(groups.labelled, alive)
        recovered(kept, smaller, images, Refit)
        left.append(distance(kept, smaller, images))
    assert left[0] < 0.95 * left[1]


def normed(*after: nn.Module) -> nn.Module:
    norm = nn.BatchNorm2d(6)
    norm.running_mean, norm.running_var = torch.randn(6) / 10, torch.rand(6) / 10
    with torch.no_grad():
        norm.weight.copy_(torch.randn(6))  # some channels are turned over
        norm.bias.copy_(torch.randn(6) / 10)
    return nn.Sequential(conv(3, 10), nn.ReLU(), nn.Conv2d(10, 6, 3, padding=1, bias=False), norm, *after)


class Added(nn.Module):
    """A branch is added to another, and the sum is clipped."""

    def __init__(self) -> None:
        super().__init__()
        self.branch, self.other = normed(), conv(3, 6)

    def forward(self, x: Tensor) -> Tensor:
        other = self.other(x)
        return (self.branch(x) + other).relu()


CLIPPED: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: normed(nn.ReLU()),
    "relu6": lambda: normed(nn.ReLU6()),
    "hardtanh": lambda: normed(nn.Hardtanh(-1, 1)),
    "bias": lambda: nn.Sequential(conv(3, 10), nn.ReLU(), nn.Conv2d(10, 6, 3), nn.ReLU()),
    "grouped": lambda: nn.Sequential(conv(3, 12), nn.ReLU(), nn.Conv2d(12, 6, 3, groups=3), nn.ReLU()),
    "linear": lambda: nn.Sequential(conv(3, 10), nn.ReLU(), nn.Flatten(), nn.Linear(640, 6), nn.ReLU()),
    "sum": Added,
}


@pytest.mark.parametrize("name", CLIPPED)
def test_what_is_clipped_away_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    groups = grouped(CLIPPED[name](), 3, 8, 8)
    images = torch.randn(COUNT, 3, 8, 8)
    left = []
    for rounds in (0, refit.CLIPPED):
        monkeypatch.setattr(refit, "CLIPPED", rounds)
        kept, smaller = cut(groups.labelled, dropped_halves(groups))
        recovered(kept, smaller, images, Refit)
        left.append(distance(kept, smaller, images))
    assert left[1] < 0.99 * left[0]


def dropped_halves(groups: Groups) -> np.ndarray:
    """All but half of every group."""
    return groups.alive(
        np.concatenate([group.rows[:, : group.positions // 2].reshape(-1) for group in groups.prunable])
    )


def test_weights_that_several_layers_share_are_fitted_to_all_of_them() -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y, z = m.wide(x).relu(), m.wide(x * 2).relu()
        return m.last(y) + 3 * m.last(z)

    torch.manual_seed(0)
    net = Calls(forward, wide=twins(nn.Linear(6, 7)), last=nn.Linear(7, 4))
    kept, smaller = dropped(grouped(net, 6), 6)
    images = torch.randn(COUNT, 6)
    recovered(kept, smaller, images, Refit)
    assert distance(kept, smaller, torch.randn(COUNT, 6)) < 2e-3


@pytest.mark.parametrize("alike", [True, False])
def test_norms_behind_shared_weights_take_up_the_mean_if_it_is_one_norm(alike: bool) -> None:
    def forward(m: nn.Module, x: Tensor) -> Tensor:
        y, z = (m.last(m.wide(each).relu()) for each in (x, x * 2))
        return m.norm(y) + 3 * (m.norm if alike else m.other)(z)

    torch.manual_seed(0)
    wide, last = nn.Conv2d(3, 7, 1), nn.Conv2d(7, 4, 1, bias=False)
    with torch.no_grad():
        wide.weight[6], wide.bias[6] = 0, 2.5
    net = Calls(forward, wide=wide, last=last, norm=nn.BatchNorm2d(4), other=nn.BatchNorm2d(4)).eval()
    kept, smaller = dropped(grouped(net, 3, 4, 4), 6)
    images = torch.randn(COUNT, 3, 4, 4)
    before = distance(kept, smaller, images)
    recovered(kept, smaller, images, Refit)
    assert distance(kept, smaller, images) < (2e-3 if alike else 0.9 * before)
    means = [smaller.module.get_buffer("norm.running_mean")]
    means += [] if alike else [smaller.module.get_buffer("other.running_mean")]
    assert all(mean.any() == alike for mean in means)


def of_net(name: str, drop: Callable[[Groups], np.ndarray]) -> tuple[Groups, Slicing, Graph, Tensor]:
    """A network of the zoo, what is left of it, and inputs."""
    net = NETS[name]
    groups = group(label(trace(net.module(), net.example())))
    alive = groups.alive(drop(groups))
    count = COUNT if groups.labelled.graph.dynamic else groups.labelled.graph.batch
    return groups, *cut(groups.labelled, alive), torch.randn(count, *net.inputs[0])


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs) == 1])
def test_recovery_brings_every_network_nearer_to_the_original_on_what_it_is_fitted_to(name: str) -> None:
    groups, kept, smaller, images = of_net(name, lambda groups: random_drop(groups, 3))
    before = distance(kept, smaller, images)
    step = 16 if groups.labelled.graph.dynamic else len(images)
    pair = Lockstep(Cut(kept, smaller))
    pair.run(dict(enumerate(images.split(step))), Refit(pair))
    after = distance(kept, smaller, images)
    # what a norm across channels does with fewer of them, no refit in front of it can foresee
    assert after <= max(before, 1e-3) or any(group.inexact for group in groups.prunable)
    assert np.isfinite(after)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs) == 1])
def test_what_lost_nothing_puts_out_what_it_did(name: str) -> None:
    _, kept, smaller, images = of_net(name, lambda groups: np.zeros(0, np.int64))
    pair = Lockstep(Cut(kept, smaller))
    pair.run({0: images}, Refit(pair))
    assert distance(kept, smaller, images) < 1e-4


# --- statistics ------------------------------------------------------------------------------------------------------


def test_batch_norms_put_out_the_mean_and_the_spread_they_had() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(5)
    norm.running_mean.uniform_(-1, 1), norm.running_var.uniform_(0.5, 2)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 3), norm)
    groups = grouped(net, 3, 9, 9)
    kept, smaller = dropped(groups, 0, 3, 4)
    images = torch.randn(COUNT, 3, 9, 9)
    recovered(kept, smaller, images, Recalibrate)
    with torch.no_grad():
        whole, left = groups.labelled.graph.module(images), smaller.module(images)
    torch.testing.assert_close(left.mean((0, 2, 3)), whole.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(left.std((0, 2, 3)), whole.std((0, 2, 3)), rtol=1e-4, atol=1e-4)


def test_batch_norms_of_an_uncut_network_keep_their_statistics() -> None:
    torch.manual_seed(0)
    groups = grouped(nn.Sequential(conv(3, 6), conv(6, 5), head(5)), 3, 8, 8)
    kept, smaller = dropped(groups)
    before = {name: tensor.clone() for name, tensor in smaller.module.state_dict().items()}
    recovered(kept, smaller, torch.randn(COUNT, 3, 8, 8), Recalibrate)
    for name, tensor in smaller.module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=1e-5, atol=1e-6)


# --- the step --------------------------------------------------------------------------------------------------------


def test_adopting_takes_over_tensors_by_name() -> None:
    torch.manual_seed(0)
    groups = grouped(nn.Sequential(conv(3, 6), head(6)), 3, 8, 8)
    (_, one), (_, other) = dropped(groups, 2), dropped(groups, 2)
    with torch.no_grad():
        for tensor in one.module.state_dict().values():
            tensor += 1
    recover_steps.adopt(other, one)
    expected, found = one.module.state_dict(), other.module.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())

"""Refit: least squares for the weights and biases of a cut network's layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.node import Node

import traced
from pfpcli.channels.groups import Groups
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.graph.graph import Graph
from pfpcli.graph.pending_product import PendingProduct
from pfpcli.recovery import epilogue, paired_run
from pfpcli.recovery.importance import Importance
from pfpcli.recovery.paired_run import PairedRun
from pfpcli.recovery.refit import Findings, Refit
from pfpcli.recovery.refit_problem import FULL
from pfpcli.recovery.shelf import Shelf
from properties import random_drop
from refits import COUNT, distance, dropped, grouped, recovered
from zoo import Calls, conv
from zoo_blocks import NETS


def means(pair: PairedRun) -> Refit:
    return Refit(pair, weights=False)


def by_rows(widest: int) -> Callable[[PairedRun], Refit]:
    """A refit that solves layers with more columns by their rows."""
    return lambda pair: Refit(pair, effort=replace(FULL, widest=widest))


@pytest.mark.parametrize("widest", [FULL.widest, 1])
def test_a_dropped_combination_of_other_channels_is_recovered_exactly(widest: int) -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    with torch.no_grad():
        first.weight[3] = first.weight[1] - 2 * first.weight[0]
        first.bias[3] = first.bias[1] - 2 * first.bias[0] + 3
    kept, smaller = dropped(grouped(nn.Sequential(first, second), 6), 3)
    images = torch.randn(COUNT, 6)
    assert distance(kept, smaller, images) > 0.1
    recovered(kept, smaller, images, by_rows(widest))
    assert distance(kept, smaller, torch.randn(COUNT, 6)) < 1e-3


def test_a_dropped_constant_channel_is_recovered_by_its_mean() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    with torch.no_grad():
        first.weight[3], first.bias[3] = 0, 2.5
    kept, smaller = dropped(grouped(nn.Sequential(first, nn.ReLU(), second), 6), 3)
    before = smaller.module.get_parameter("2.weight").clone()
    recovered(kept, smaller, torch.randn(COUNT, 6), means)
    assert distance(kept, smaller, torch.randn(COUNT, 6)) < 1e-5
    assert torch.equal(smaller.module.get_parameter("2.weight"), before)


def test_an_output_that_is_nothing_gets_no_numbers_that_processors_are_slow_with() -> None:
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    with torch.no_grad():
        second.weight[2], second.bias[2] = 0, 1e-39
        second.weight[2, 0] = 3e-39
    kept, smaller = dropped(grouped(nn.Sequential(first, second), 6), 3)
    recovered(kept, smaller, torch.randn(COUNT, 6), Refit)
    made = [smaller.module.get_parameter(f"1.{name}") for name in ("weight", "bias")]
    assert all((tensor.abs() >= torch.finfo(torch.float32).tiny).logical_or(tensor == 0).all() for tensor in made)
    assert not made[0][2].any()


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


@pytest.mark.parametrize("widest", [FULL.widest, 1])
@pytest.mark.parametrize("name", TWINS)
def test_every_kind_of_layer_compensates_for_a_dropped_twin(name: str, widest: int) -> None:
    torch.manual_seed(0)
    module, size = TWINS[name]()
    kept, smaller = dropped(grouped(module, *size), 5)
    images, others = torch.randn(4 * COUNT, *size), torch.randn(COUNT, *size)
    assert distance(kept, smaller, others) > 0.02
    recovered(kept, smaller, images, by_rows(widest))
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


def test_the_end_of_a_residual_branch_compensates_for_the_error_of_the_other_branch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    groups = grouped(Blocks(), 3, 8, 8)
    alive = groups.alive(np.concatenate([g.units[:6] for g in groups.prunable if len(g.units) == 10]))
    images = torch.randn(COUNT, 3, 8, 8)
    left = []
    for added in (epilogue._other_summand, lambda *_: None):
        monkeypatch.setattr(epilogue, "_other_summand", added)
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
def test_an_error_beyond_the_limit_of_a_clipping_activation_does_not_count(name: str) -> None:
    torch.manual_seed(0)
    groups = grouped(CLIPPED[name](), 3, 8, 8)
    images = torch.randn(COUNT, 3, 8, 8)
    left = []
    for rounds in (0, FULL.clipped):
        effort = replace(FULL, clipped=rounds)
        kept, smaller = cut(groups.labelled, dropped_halves(groups))
        alike = Findings(importance=Importance())  # every position counts the same, as in the distance
        recovered(kept, smaller, images, lambda pair, how=(effort, alike): Refit(pair, effort=how[0], findings=how[1]))
        left.append(distance(kept, smaller, images))
    assert left[1] < 0.99 * left[0]


def dropped_halves(groups: Groups) -> np.ndarray:
    """All but half of every group."""
    return groups.alive(
        np.concatenate([group.rows[:, : group.positions // 2].reshape(-1) for group in groups.prunable])
    )


def test_a_shared_weight_is_fitted_to_all_its_layers() -> None:
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
def test_a_norm_behind_a_shared_weight_takes_the_mean_if_it_is_the_only_norm(alike: bool) -> None:
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
    groups = traced.grouped(name)
    alive = groups.alive(drop(groups))
    count = COUNT if groups.labelled.graph.dynamic else groups.labelled.graph.batch
    return groups, *cut(groups.labelled, alive), torch.randn(count, *NETS[name].inputs[0])


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs) == 1])
def test_a_refit_brings_every_network_nearer_to_the_original_on_the_fitting_images(name: str) -> None:
    groups, kept, smaller, images = of_net(name, lambda groups: random_drop(groups, 3))
    before = distance(kept, smaller, images)
    step = 16 if groups.labelled.graph.dynamic else len(images)
    pair = PairedRun(Cut(kept, smaller))
    for i, some in enumerate(images.split(step)):
        pair.add(i, some)
    pair.run(Refit(pair))
    after = distance(kept, smaller, images)
    # what a norm across channels does with fewer of them, no refit in front of it can foresee
    assert after <= max(before, 1e-3) or any(group.inexact for group in groups.prunable)
    assert np.isfinite(after)


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs) == 1])
def test_an_uncut_network_keeps_its_outputs(name: str) -> None:
    _, kept, smaller, images = of_net(name, lambda groups: np.zeros(0, np.int64))
    pair = PairedRun(Cut(kept, smaller))
    pair.add(0, images)
    pair.run(Refit(pair))
    assert distance(kept, smaller, images) < 1e-4


def test_values_that_lie_in_a_file_change_nothing() -> None:
    torch.manual_seed(0)
    groups = traced.grouped("residual")
    alive = groups.alive(random_drop(groups, 3))
    images = torch.randn(COUNT, *NETS["residual"].inputs[0])
    found = []
    for most in (0, 20_000, 1 << 30):
        kept, smaller = cut(groups.labelled, alive)
        pair = PairedRun(Cut(kept, smaller), Shelf(most))
        pair.add(0, images[:16])
        pair.add(16, images[16:])
        pair.run(Refit(pair))
        found.append(smaller.module.state_dict())
    for other in found[1:]:
        assert all(torch.equal(tensor, found[0][name]) for name, tensor in other.items())


class AllWithAll(nn.Module):
    """Attention of each position of a map to all positions; a layer comes between the product and its use."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.value = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 6, 1), nn.Conv2d(6, 6, 1)
        self.last = nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x).relu())
        flat = x.flatten(2)
        likeness = (flat.mT @ flat).softmax(2)
        return self.last((self.value(x).flatten(2) @ likeness.mT).view_as(x) + x)


def test_a_product_of_all_positions_with_all_is_not_kept_from_one_layer_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    groups = grouped(AllWithAll(), 3, 24, 24)
    images, found, largest = torch.randn(8, 3, 24, 24), [], []

    class Seen(Shelf):
        def put(self, values: Mapping[Node, Any], before: Mapping[Node, Any] | None = None) -> dict[Node, Any]:
            largest[-1] = max(largest[-1], *(value.numel() for value in values.values()))
            return super().put(values, before)

    for expanding in (paired_run.EXPANDING, 1 << 60):
        monkeypatch.setattr(paired_run, "EXPANDING", expanding)
        largest.append(0)
        kept, smaller = dropped(groups, 2, 5)
        pair = PairedRun(Cut(kept, smaller), Seen())
        pair.add(0, images)
        pair.run(Refit(pair))
        found.append(smaller.module.state_dict())
    product = len(images) * 24**4
    assert largest[0] < product / 16
    assert largest[1] == product
    assert all(torch.equal(tensor, found[0][name]) for name, tensor in found[1].items())


def test_a_pending_product_stays_in_memory_on_a_shelf_without_room() -> None:
    node, product = next(iter(traced.grouped("residual").labelled.graph.nodes)), PendingProduct(*torch.randn(2, 4, 4))
    shelf = Shelf(0)
    found = shelf.take(shelf.put({node: product}), {node})
    assert found[node] is product


def test_a_value_that_lies_in_a_file_is_not_written_again() -> None:
    torch.manual_seed(0)
    groups = traced.grouped("residual")
    written: list[int] = []

    class Seen(Shelf):
        def put(self, values: Mapping[Node, Any], before: Mapping[Node, Any] | None = None) -> dict[Node, Any]:
            found = super().put(values, before)
            known = {id(each) for each in (before or {}).values()}
            written.extend(id(node) for node, each in found.items() if id(each) not in known)
            return found

    kept, smaller = cut(groups.labelled, groups.alive(random_drop(groups, 3)))
    pair = PairedRun(Cut(kept, smaller), Seen(0))
    pair.add(0, torch.randn(COUNT, *NETS["residual"].inputs[0]))
    pair.run(Refit(pair))
    assert len(written) == len(set(written))

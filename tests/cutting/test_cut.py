"""The central property: a cut network equals the masked original, for many nets and random plans."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from pfpcli.channels.cost import Costs, count
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.cutting.verify import cut_vs_masked
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from properties import (
    assert_costs_as_predicted,
    assert_equals_masked,
    assert_nothing_dropped_changes_nothing,
    difference,
    random_drop,
)
from traced import grouped
from zoo_blocks import NETS

every_net = pytest.mark.parametrize("name", NETS)


def seeds(count: int) -> pytest.MarkDecorator:
    """Random plans; those after the first two are slow."""
    params = [pytest.param(seed, marks=[pytest.mark.slow] * (seed >= 2)) for seed in range(count)]
    return pytest.mark.parametrize("seed", params)


@every_net
@seeds(6)
def test_a_cut_network_equals_the_masked_original(name: str, seed: int) -> None:
    groups = grouped(name)
    alive = groups.alive(random_drop(groups, seed))
    assert_equals_masked(groups, alive, cut(groups.labelled, alive).graph, NETS[name].example(batch=3, seed=seed))


@every_net
@seeds(4)
def test_the_predicted_cost_is_the_cost_counted_after_the_cut(name: str, seed: int) -> None:
    groups = grouped(name)
    alive = groups.alive(random_drop(groups, seed))
    assert_costs_as_predicted(groups, alive, cut(groups.labelled, alive).graph)


@every_net
def test_dropping_nothing_leaves_every_weight_and_output_as_it_was(name: str) -> None:
    assert_nothing_dropped_changes_nothing(grouped(name), NETS[name].example(batch=3))


@every_net
def test_tracing_keeps_what_the_module_computes(name: str) -> None:
    net = NETS[name]
    inputs = net.example(batch=4, seed=1)
    with torch.no_grad():
        expected, found = net.module()(*inputs), grouped(name).labelled.graph.module(*inputs)
    assert difference(found, expected) < 1e-6


@every_net
def test_something_can_be_pruned_in_every_net_that_has_known_ops_between_its_layers(name: str) -> None:
    assert grouped(name).prunable


@every_net
def test_only_nets_with_statistics_across_channels_are_inexact(name: str) -> None:
    has_statistics = name in ("spatial_gate", "norms", "attention", "cbam", "transformer")
    assert any(g.inexact for g in grouped(name).prunable) == has_statistics


@every_net
def test_macs_agree_with_the_counter_of_torch(name: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    graph = grouped(name).labelled.graph
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        graph.module(*graph.example)
    # torch's counter does not see attention on the CPU: heads, positions by positions, width, twice (and two layers)
    unseen = {"attention": 2 * 25 * 4 * 2, "transformer": 3 * 16 * 4 * 2 * 2}.get(name, 0)
    assert count(graph).macs == counter.get_total_flops() // 2 // graph.batch + unseen


def test_macs_and_parameters_by_hand() -> None:
    # conv 3->4 3x3 on 8x8 pad 1, then 4->5, with biases; then the first layer loses one channel
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1), torch.nn.Conv2d(4, 5, 3, padding=1))
    groups = group(label(trace(module, (torch.randn(2, 3, 8, 8),))))
    assert count(groups.labelled.graph) == Costs(112 + 185, 6912 + 11520, 4 * (112 + 185))
    (only,) = groups.prunable
    smaller = cut(groups.labelled, groups.alive(only.units[:1])).graph
    assert count(smaller) == Costs(84 + 140, 5184 + 8640, 4 * (84 + 140))


def state(graph: Graph) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in graph.module.state_dict().items()}


def test_concat_keeps_the_order_of_its_branches_when_one_branch_is_pruned() -> None:
    groups = grouped("concat")
    left = next(g for g in groups.prunable if g.name == "left.0")
    smaller = cut(groups.labelled, groups.alive(left.units[[0, 3]])).graph
    whole = groups.labelled.graph.module.state_dict()["join.0.weight"]
    kept = [i for i in range(18) if i not in (6, 9)]
    assert torch.equal(smaller.module.state_dict()["join.0.weight"], whole[:, kept])


def test_all_columns_of_a_flattened_channel_are_dropped_together() -> None:
    groups = grouped("flatten_linear")
    first = next(g for g in groups.prunable if g.name == "0.0")
    smaller = cut(groups.labelled, groups.alive(first.units[:2])).graph
    assert state(smaller)["2.weight"] == (10, 96 - 2 * 16)


def test_residual_branches_share_one_group() -> None:
    groups = grouped("residual")
    trunk = next(g for g in groups.prunable if g.name == "stem.0")
    assert set(trunk.readers) == {"block.0.0", "head.2"}
    smaller = state(cut(groups.labelled, groups.alive(trunk.units[:3])).graph)
    assert smaller["stem.0.weight"][0] == smaller["block.1.weight"][0] == 5


def test_inputs_and_outputs_of_the_model_are_frozen_and_say_so() -> None:
    reasons = {g.name: g.frozen for g in grouped("plain").groups if g.frozen}
    assert reasons == {"input input": "input of the model", "4.2": "output of the model"}


def test_an_unknown_op_freezes_the_layers_next_to_it_and_no_others() -> None:
    groups = grouped("unknown_op")
    frozen = {g.name: g.frozen for g in groups.groups if "no rule" in g.frozen}
    assert frozen == {"0.0": "reaches aten.prod.dim_int, which has no rule"}
    assert [g.name for g in groups.prunable] == ["2.0"]


def test_frozen_layers_are_not_prunable() -> None:
    net = NETS["plain"]
    groups = group(label(trace(net.module(), net.example())), freeze=["1.*"])
    assert [g.name for g in groups.prunable] == ["3.0"]


@every_net
def test_the_batch_size_stays_free(name: str) -> None:
    assert grouped(name).labelled.graph.dynamic


def test_a_head_is_dropped_with_its_queries_keys_values_and_its_row_of_the_bias() -> None:
    class Biased(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.q, self.k, self.v, self.out = (nn.Linear(8, 12) for _ in range(4))
            self.bias, self.last = nn.Parameter(torch.randn(3, 5, 5)), nn.Linear(12, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            q, k, v = (y(x).view(x.shape[0], 5, 3, 4).transpose(1, 2) for y in (self.q, self.k, self.v))
            seen = (q @ k.mT + self.bias).softmax(-1) @ v
            return self.last(seen.transpose(1, 2).flatten(2))

    groups = group(label(trace(Biased().eval(), (torch.randn(2, 5, 8),))))
    heads = next(g for g in groups.prunable if g.name.endswith("(heads)"))
    assert heads.size == 3
    alive = groups.alive(heads.units[1:2])
    smaller = cut(groups.labelled, alive).graph
    shapes = state(smaller)
    assert shapes["q.weight"] == shapes["k.weight"] == shapes["v.weight"] == (8, 8)
    assert (shapes["bias"], shapes["last.weight"]) == ((2, 5, 5), (2, 8))
    whole = groups.labelled.graph.module.state_dict()
    assert torch.equal(smaller.module.state_dict()["last.weight"], whole["last.weight"][:, [*range(4), *range(8, 12)]])
    assert_equals_masked(groups, alive, smaller, (torch.randn(3, 5, 8),))


def test_heads_and_the_width_of_what_is_left_of_them_are_chosen_apart() -> None:
    groups = grouped("attention")
    width = next(g for g in groups.prunable if g.name == "qkv")
    heads = next(g for g in groups.prunable if g.name == "qkv (heads)")
    dropped = np.concatenate([heads.units[:1], width.rows[:, :2].flatten()])
    smaller = cut(groups.labelled, groups.alive(dropped)).graph
    assert state(smaller)["qkv.weight"] == (3 * 1 * 2, 8)


def test_heads_that_pass_through_the_batch_dimension_are_found() -> None:
    names = {g.name for g in grouped("transformer").prunable}
    assert {"encoder.layers.0.self_attn (heads)", "encoder.layers.1.self_attn (heads)"} <= names


@pytest.mark.parametrize("name", [name for name, net in NETS.items() if len(net.inputs[0]) == 3])
def test_networks_take_images_of_any_size_unless_their_layers_fix_one(name: str) -> None:
    # a classifier on a flattened map, and one column of text: these have one size
    assert grouped(name).labelled.graph.spatial == (name not in ("flatten_linear", "crnn"))


def test_cutting_does_not_change_the_original_graph() -> None:
    groups = grouped("concat")
    before = {k: v.clone() for k, v in groups.labelled.graph.module.state_dict().items()}
    text = str(groups.labelled.graph.module.graph)
    cut(groups.labelled, groups.alive(random_drop(groups, 3)))
    assert str(groups.labelled.graph.module.graph) == text
    assert all(torch.equal(before[k], v) for k, v in groups.labelled.graph.module.state_dict().items())


def test_a_network_may_be_deeper_than_python_calls_may_be_nested() -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.read, self.head = nn.Linear(4, 6), nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.read(x)
            for _ in range(1200):
                y = -y
            return self.head(y @ y.transpose(1, 2))

    groups = group(label(trace(Deep().eval(), (torch.randn(2, 5, 4),))))
    assert groups.labelled.unknown == []
    assert [each.name for each in groups.prunable] == ["read"]


def test_a_dropped_channel_may_hold_infinite_numbers() -> None:
    class Reciprocal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(1 / torch.relu(self.a(x)))

    torch.manual_seed(0)
    net = Reciprocal().eval()
    with torch.no_grad():
        net.a.weight[1:], net.a.bias[1:] = net.a.weight[1:].abs(), 9.0
        net.a.weight[0], net.a.bias[0] = 0.0, -1.0
    groups = group(label(trace(net, (torch.rand(2, 3, 4, 4),))))
    (row,) = groups.prunable[0].rows
    made = cut(groups.labelled, groups.alive(row[:1]))
    assert cut_vs_masked(made, torch.rand(2, 3, 4, 4)) <= 1e-12

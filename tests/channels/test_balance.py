"""Balances: rows of channels that have to lose as many are resolved for any concatenation into any groups."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.graph.trace import trace
from properties import assert_costs_as_predicted, assert_equals_masked, random_drop


class Concatenated(nn.Module):
    """Branches of some widths, side by side in front of a grouped convolution."""

    def __init__(self, widths: list[int], groups: int, per_group: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Conv2d(3, width, 3, padding=1) for width in widths)
        self.grouped = nn.Conv2d(sum(widths), groups * per_group, 3, padding=1, groups=groups)
        self.head = nn.Linear(groups * per_group, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([branch(x).relu() for branch in self.branches], 1)
        return self.head(self.grouped(x).relu().mean((2, 3)))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 5), min_size=2, max_size=4), st.data())
def test_any_concatenation_into_any_number_of_groups_is_grouped_and_cut_as_masked(
    widths: list[int], data: st.DataObject
) -> None:
    total = sum(widths)
    groups = data.draw(st.sampled_from([n for n in range(1, total + 1) if total % n == 0]))
    per_group = data.draw(st.integers(1, 2))
    torch.manual_seed(0)
    net = Concatenated(widths, groups, per_group).eval()
    found = group(label(trace(net, (torch.randn(2, 3, 4, 4),))))
    found.check()
    for seed in range(2):
        alive = found.alive(random_drop(found, seed))
        smaller = cut(found.labelled, alive).graph
        assert_equals_masked(found, alive, smaller, (torch.randn(2, 3, 4, 4),))
        assert_costs_as_predicted(found, alive, smaller)

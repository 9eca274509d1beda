"""A module gets the smaller tensors if its own forward still computes the same."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.exporting.rebuild import rebuild
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from properties import random_drop


class Checked(nn.Module):
    """A convolution whose result is checked between two layers."""

    def __init__(self, check: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 4, 1)
        self.check = check

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.check(self.first(x)))


def eight_channels(x: Tensor) -> Tensor:
    if x.shape[1] != 8:
        raise ValueError
    return x


def cut_at_random(module: nn.Module) -> Graph:
    groups = group(label(trace(module, (torch.randn(2, 3, 4, 4),))))
    return cut(groups.labelled, groups.alive(random_drop(groups, 1))).graph


def test_a_module_of_layers_is_rebuilt_and_the_original_stays_unchanged() -> None:
    module = Checked(torch.relu).eval()
    smaller = cut_at_random(module)
    rebuilt, reason = rebuild(module, smaller)
    assert reason == "ok"
    assert rebuilt is not None
    assert (rebuilt.first.out_channels, module.first.out_channels) == (rebuilt.first.weight.shape[0], 8)
    assert rebuilt.first.out_channels < 8
    x = torch.randn(3, 3, 4, 4)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(x), smaller.module(x))


@pytest.mark.parametrize(
    ("check", "reason"),
    [
        (eight_channels, "its own forward fails on the smaller tensors (ValueError)"),
        (lambda x: x.view(2, 8, 4, 4), "its own forward fails on the smaller tensors (shape '[2, 8, 4, 4]' is invalid"),
    ],
)
def test_a_module_with_sizes_in_its_code_is_not_rebuilt(check: Callable[[Tensor], Tensor], reason: str) -> None:
    module = Checked(check).eval()
    rebuilt, found = rebuild(module, cut_at_random(module))
    assert rebuilt is None
    assert found.startswith(reason)

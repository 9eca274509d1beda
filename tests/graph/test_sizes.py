"""Whether a network takes images of other sizes is tried on several sizes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pfpcli.graph.trace import other_sizes, trace


class Branches(nn.Module):
    """Doubles what is wide; what is read as a rule of the traced size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x * 2 if x.shape[-1] >= self.width else x).mean((2, 3))


class Pools(nn.Module):
    """Averages areas whose number follows the size, which a traced network cannot say."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        size = x.shape[-2] * 2 // 3, x.shape[-1] * 2 // 3
        return self.conv(F.interpolate(x, size=size, mode="area")).mean((2, 3))


def example() -> tuple[Tensor, ...]:
    return (torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)),)


@pytest.mark.parametrize("width", [25, 90, 200])
def test_a_network_that_decides_by_the_size_has_a_fixed_size(width: int) -> None:
    assert not trace(Branches(width).eval(), example()).spatial


def test_a_network_whose_graph_follows_the_size_takes_other_sizes() -> None:
    assert trace(Branches(10_000).eval(), example()).spatial


def test_a_free_graph_computes_what_the_network_does_at_every_size_tried() -> None:
    net = Pools().eval()
    graph = trace(net, example())
    for inputs in other_sizes(example()) if graph.spatial else []:
        torch.testing.assert_close(graph.module(*inputs), net(*inputs))


def test_the_sizes_are_odd_and_even_smaller_and_larger_and_not_square() -> None:
    sizes = [tuple(inputs[0].shape[2:]) for inputs in other_sizes(example())]
    assert any(h % 2 and w % 2 for h, w in sizes)
    assert any(h < 32 and w < 32 for h, w in sizes)
    assert any(h >= 256 and w >= 256 for h, w in sizes)
    assert all(h != w for h, w in sizes)


def test_large_images_are_tried_at_few_sizes() -> None:
    assert len(list(other_sizes((torch.zeros(1, 3, 720, 1280),)))) < len(list(other_sizes(example())))

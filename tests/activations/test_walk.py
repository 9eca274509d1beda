"""A walk shows what layers read, and computes nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.fx.node import Node

from pfpcli.activations.walk import Walk
from pfpcli.channels.reading_layers import Reader, readers
from tasks import grouped
from traced import grouped as of_the_zoo
from zoo_blocks import NETS


class Branches(nn.Module):
    """Two branches, and a layer behind both."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Linear(3, 4), nn.Linear(4, 5), nn.Linear(4, 5)
        self.last = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        return self.last(self.left(x).sigmoid() + self.right(x).tanh())


class Counting(Walk):
    """Remembers the ops that it computes."""

    ran: tuple[str, ...] = ()

    def call_function(self, target: object, args: object, kwargs: object) -> object:
        self.ran += (str(target),)
        return super().call_function(target, args, kwargs)


@pytest.mark.parametrize(
    ("layers", "ops"),
    [
        ((), ()),
        (("left",), ("linear", "relu")),
        (("left", "right"), ("linear", "relu")),
        (("last",), ("linear", "relu", "linear", "sigmoid", "linear", "tanh", "add")),
        (("left", "last"), ("linear", "relu", "linear", "sigmoid", "linear", "tanh", "add")),
    ],
)
def test_only_what_the_layers_need_is_computed(layers: tuple[str, ...], ops: tuple[str, ...]) -> None:
    groups = grouped(Branches().requires_grad_(False), torch.randn(2, 3))
    shown: list[str] = []
    wanted = [each for each in readers(groups) if each.name in layers]
    assert len(wanted) == len(layers)
    walk = Counting(groups.labelled.graph.module, wanted, lambda reader, x, weight: shown.append(reader.name))
    walk.run(torch.randn(4, 3))
    assert tuple(shown) == layers
    assert tuple(op.split(".")[1] for op in walk.ran) == ops


@pytest.mark.parametrize("name", NETS)
def test_each_layer_alone_is_shown_the_same_as_all_together(name: str) -> None:
    groups, x = of_the_zoo(name), NETS[name].example(batch=3, seed=1)
    found = readers(groups)

    def shown(some: list[Reader]) -> list[tuple[Node, Tensor, Tensor]]:
        seen: list[tuple[Node, Tensor, Tensor]] = []
        walk = Walk(groups.labelled.graph.module, some, lambda reader, x, weight: seen.append((reader.node, x, weight)))
        with torch.no_grad():
            walk.run(*x)
        return seen

    together, alone = shown(found), [each for reader in found for each in shown([reader])]
    assert len(together) == len(found)
    for (node, *values), (of, *others) in zip(
        sorted(together, key=lambda each: each[0].name), sorted(alone, key=lambda each: each[0].name), strict=True
    ):
        assert node is of
        for value, other in zip(values, others, strict=True):
            assert torch.equal(value, other)

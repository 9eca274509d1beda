"""A small network with residual blocks, and its curves."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import Curve, curves
from pfpcli.planning.plan import Budget
from pfpcli.scoring.scores import Scores
from tasks import grouped, scores, task
from zoo import conv


class Blocks(nn.Module):
    """A stem, two residual blocks with a hidden layer each, a layer between them that changes the width, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.between, self.head = conv(3, 8), conv(8, 12), conv(12, 20)
        self.first, self.second = (nn.ModuleList([conv(n, 2 * n), conv(2 * n, n)]) for n in (8, 12))
        self.last = nn.Conv2d(20, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = x + self.first[1](self.first[0](x))
        x = self.between(x)
        x = x + self.second[1](self.second[0](x))
        return self.last(self.head(x))


@cache
def measured() -> tuple[Groups, Scores, list[Curve]]:
    """The groups of the network, a score of each unit, and the curve of each group."""
    torch.manual_seed(0)
    images = torch.randn(48, 3, 8, 8)
    groups = grouped(Blocks().requires_grad_(False), images[:2])
    found = scores(groups, [images], "l2")
    tasks = (task(groups, part.split(8)) for part in images.chunk(2))
    return groups, found, curves(*tasks, orders(groups, found, Budget()), count(groups.labelled.graph).macs)

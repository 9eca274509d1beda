"""Networks that lose a few channels, and visitors that recover them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.fx.node import Node
from torch.utils._pytree import tree_leaves

from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.recovery.paired_run import PairedRun

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
    kept: Slicing, smaller: Graph, images: Tensor, *visitors: Callable[[PairedRun], Callable[[Node], None]]
) -> None:
    for visitor in visitors:
        pair = PairedRun(Cut(kept, smaller))
        for i, some in enumerate(images.split(16)):
            pair.add(i, some)
        pair.run(visitor(pair))


def distance(kept: Slicing, smaller: Graph, images: Tensor) -> float:
    """Of the outputs, relative."""
    with torch.no_grad():
        whole, left = (
            torch.cat([x.flatten() for x in tree_leaves(graph.module(images)) if x.is_floating_point()])
            for graph in (kept.labelled.graph, smaller)
        )
    return float((whole - left).norm() / whole.norm())

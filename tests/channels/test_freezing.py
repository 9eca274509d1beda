"""Channels that the user names stay: those of a layer, or of one side of it."""

from __future__ import annotations

import torch
from torch import nn

from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import trace
from residual_net import Blocks
from zoo import conv


def labelled() -> Labelled:
    """Three layers one after the other: 0 makes what 1 reads, 1 makes what 2 reads."""
    net = nn.Sequential(conv(3, 8), conv(8, 12), nn.Conv2d(12, 4, 1)).eval()
    return label(trace(net, (torch.randn(2, 3, 8, 8),)))


def frozen(*patterns: str) -> set[str]:
    """The layers whose channels may not go, for the reason that a pattern names them."""
    found = group(labelled(), patterns)
    return {each.name for each in found.groups if each.frozen.startswith("--freeze")}


def test_the_name_of_a_layer_freezes_what_it_makes_and_what_it_reads() -> None:
    assert frozen("1.0") == {"0.0", "1.0"}


def test_out_freezes_what_a_layer_makes() -> None:
    assert frozen("1.0:out") == {"1.0"}


def test_in_freezes_what_a_layer_reads() -> None:
    assert frozen("1.0:in") == {"0.0"}


def test_a_side_of_a_norm_is_its_channels() -> None:
    assert frozen("1.1:out") == frozen("1.1:in") == {"1.0"}


def inside(module: nn.Module) -> Groups:
    return group(label(trace(module.eval(), (torch.randn(2, 3, 8, 8),))), where="inside")


def test_inside_leaves_trunk_stem_and_head_alone() -> None:
    found = inside(Blocks())
    assert {each.name for each in found.prunable} == {"first.0.0", "second.0.0"}
    outside = {each.name: each.frozen for each in found.groups if each.name in ("stem.0", "between.0", "head.0")}
    assert set(outside.values()) == {"--where inside: not inside of a residual block"}
    assert len(outside) == 3


def test_a_network_without_residual_blocks_has_nothing_inside() -> None:
    assert not inside(nn.Sequential(conv(3, 8), conv(8, 12), nn.Conv2d(12, 4, 1))).prunable

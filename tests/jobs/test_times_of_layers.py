"""The layers of a network and the runtime's nodes: which node a layer has become."""

from __future__ import annotations

import pytest

from pfpcli.jobs.latency import _matched
from pfpcli.latency.layers import layers_of
from pfpcli.latency.stopwatch import NodeTimed
from traced import grouped


@pytest.mark.parametrize("channels_last", [False, True], ids=["channels first", "channels last"])
def test_layers_that_make_the_same_shape_are_told_by_what_they_read(channels_last: bool) -> None:
    layers = [layer for layer in layers_of(grouped("projection").labelled.graph)[0] if layer.stored]
    shapes = [[tuple(node.meta["val"].shape[1:]) for node in (layer.reads[0], layer.last)] for layer in layers]
    assert len({made for _, made in shapes}) < len(shapes) == len({(read, made) for read, made in shapes})

    def seen(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (*shape[1:], shape[0]) if channels_last and len(shape) == 3 else shape

    nodes = [NodeTimed(seen(read), seen(made), float(i)) for i, (read, made) in enumerate(shapes)]
    assert _matched(layers, nodes[::-1]) == [float(i) for i in range(len(nodes))]

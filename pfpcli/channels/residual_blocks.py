"""Residual blocks: the sums of two branches, and the channels inside of blocks.

The channels that a sum holds are a trunk: many layers read them, so they cost more to lose than channels that one layer
reads inside of a block.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch.fx.node import Node

from pfpcli.channels.labelled import Labelled
from pfpcli.channels.labels import Axes
from pfpcli.graph.graph import Graph, is_tensor


def sums(graph: Graph) -> list[Node]:
    """Return the sums of two branches of one shape, in graph order."""
    found = []
    for node in graph.nodes:
        if str(node.target) == "aten.add.Tensor":
            added = [each for each in node.args if isinstance(each, Node) and each.op == "call_function"]
            if len(added) == 2 and all(map(is_tensor, added)) and len({each.meta["val"].shape for each in added}) == 1:
                found.append(node)
    return found


def inside(labelled: Labelled, root: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return which units are inside of residual blocks: bool[labels], False for labels that are no unit.

    They are made between the first fork and the last sum of two branches, and no sum holds them.

    Args:
        labelled: the graph and its labels.
        root: int64[labels], the unit of each label.
    """
    before: dict[Node, set[Node]] = {}
    for node in labelled.graph.nodes:
        before[node] = {node}.union(*(before[source] for source in node.all_input_nodes))
    found = sums(labelled.graph)
    within: set[Node] = set().union(*(before[node] for node in found))
    shared = set(within)
    for node in found:
        for each in node.all_input_nodes:
            shared &= before[each]
    within -= shared
    is_inside = np.zeros(len(root), dtype=bool)
    for contraction in labelled.contractions:
        if contraction.issued is not None and contraction.node in within:
            is_inside[root[contraction.issued.numpy()]] = True
    for contraction in labelled.contractions:
        if contraction.issued is not None and contraction.node not in within:
            is_inside[root[contraction.issued.numpy()]] = False
    for node in found:
        axes = labelled.axes.get(node)
        if isinstance(axes, Axes):
            for vector in axes.vectors:
                is_inside[root[vector.numpy()].reshape(-1)] = False
    is_inside[0] = False
    return is_inside

"""Readers: the layers that read channels, and what they see while images go through the network.

A layer with weights reads channels, and so does a product of activations (queries and keys of an attention), whose
weights are the other operand as they are for each sample. Channels that cannot go are read too; their unit is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels import rules
from pfpcli.channels.flow import Contraction
from pfpcli.channels.groups import Group, Groups
from pfpcli.channels.layers import Layer


@dataclass(frozen=True, eq=False)
class Reader(Layer):
    """A layer that reads channels.

    Attributes:
        contraction: where it is in the graph.
        units: int64[C_in], the unit of each channel it reads, 0 where that cannot go.
        heads: int64[C_in], the unit of the head a channel belongs to, 0 where that cannot go as a whole.
        patches: positions it is applied at, P.
        outputs: channels it makes, in each group of a grouped convolution.
        neurons: numbers it puts out for one input.
    """

    contraction: Contraction
    units: NDArray[np.int64]
    heads: NDArray[np.int64]
    patches: int
    outputs: int
    neurons: int


def readers(groups: Groups) -> list[Reader]:
    """The layers with weights, and the products of activations that read channels which may go."""
    prunable = np.zeros(len(groups.root), dtype=bool)
    for group in groups.prunable:
        prunable[group.units] = True
    head = np.zeros(len(groups.root), dtype=np.int64)
    for part, owned in groups.owned.items():
        head[owned] = part
    found = []
    for contraction in groups.labelled.contractions:
        units = groups.root[contraction.labels.numpy()]
        units = np.where(prunable[units], units, 0)
        rule = rules.find(contraction.node.target)
        is_factor = units.any() and _is_stack(groups, contraction)
        weight = contraction.weight or (contraction.factor if is_factor else None)
        if weight is None or rule is None or rule.columns is None:
            continue
        x, w = contraction.x.meta["val"][:1], weight.meta["val"]
        with x.fake_mode:
            columns = rule.columns(contraction.node, x, w if contraction.weight else w[:1])
        kernel, patches = columns.x.shape[3:]
        neurons = columns.weight.shape[:2].numel() * patches
        # in a product of activations a head is all there is: its share says nothing
        heads = head[units] if contraction.weight is not None else np.zeros_like(units)
        found.append(
            Reader(
                contraction.node,
                contraction.x,
                weight,
                kernel,
                contraction,
                units,
                heads,
                patches,
                columns.weight.shape[1],
                neurons,
            )
        )
    return found


def seats(reader: Reader, group: Group, labels: int) -> NDArray[np.int64]:
    """int64[C_in], where in a group the unit of each channel is, or its head; n where it is in neither."""
    where = np.full(labels, len(group.units))
    where[group.units] = np.arange(len(group.units))
    own = where[reader.units]
    return own if (own < len(group.units)).any() else where[reader.heads]


def _is_stack(groups: Groups, contraction: Contraction) -> bool:
    """Whether a product of activations is one of each sample, its parts, if any, the last of the stack."""
    x, factor = contraction.x, contraction.factor
    if factor is None or x.meta["val"].dim() < 3 or x.meta["val"].shape[:-2] != factor.meta["val"].shape[:-2]:
        return False
    rank = x.meta["val"].dim()
    if contraction.dim != rank - 1:
        return False
    axes = groups.labelled.axes[x]
    parts = axes.ragged[rank - 1].parts if rank - 1 in axes.ragged else ()
    return parts == tuple(range(rank - 2 - len(parts), rank - 2))

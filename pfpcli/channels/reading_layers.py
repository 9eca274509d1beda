"""Reading layers: the layers that read channels, with the unit of each channel.

A layer with weights reads channels. So does a product of activations (queries and keys of an attention), whose weights
are its other operand, different for each sample. Channels that may not be dropped are read as well; their unit is 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels import rules
from pfpcli.channels.groups import Group, Groups
from pfpcli.channels.labelled import Contraction
from pfpcli.channels.layers import Layer


@dataclass(frozen=True, eq=False)
class Reader(Layer):
    """A layer that reads channels.

    Attributes:
        contraction: where the layer is in the graph.
        units: int64[C_in], the unit of each channel that the layer reads; 0 if the channel may not be dropped.
        heads: int64[C_in], the unit of the head that each channel belongs to; 0 if no such head may be dropped.
        outputs: channels that the layer makes, in each group of a grouped convolution.
        neurons: numbers in the output for one sample.
    """

    contraction: Contraction
    units: NDArray[np.int64]
    heads: NDArray[np.int64]
    outputs: int
    neurons: int


def readers(groups: Groups) -> list[Reader]:
    """Return the layers with weights, and the products of activations that read channels which may be dropped."""
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
        # in a product of activations a head is all there is: its share of the sum says nothing
        heads = head[units] if contraction.weight is not None else np.zeros_like(units)
        reader = _reader(groups, contraction, units, heads)
        if reader is not None:
            found.append(reader)
    return found


def _reader(
    groups: Groups, contraction: Contraction, units: NDArray[np.int64], heads: NDArray[np.int64]
) -> Reader | None:
    """Return the reading layer of a contraction; None if it has no weights, or cannot be shown as a matrix product."""
    rule = rules.find(contraction.node.target)
    is_factor = units.any() and _is_stack(groups, contraction)
    weight = contraction.weight or (contraction.factor if is_factor else None)
    if weight is None or rule is None or rule.columns is None:
        return None
    x, w = contraction.x.meta["val"][:1], weight.meta["val"]
    with x.fake_mode:
        columns = rule.columns(contraction.node, x, w if contraction.weight else w[:1])
    kernel, patches = columns.x.shape[3:]
    return Reader(
        node=contraction.node,
        x=contraction.x,
        weight=weight,
        kernel=kernel,
        patches=patches,
        contraction=contraction,
        units=units,
        heads=heads,
        outputs=columns.weight.shape[1],
        neurons=columns.weight.shape[:2].numel() * patches,
    )


def seats(reader: Reader, group: Group, labels: int) -> NDArray[np.int64]:
    """Return where in the units of a group the unit of each channel is, or the unit of its head.

    Args:
        reader: a layer that reads channels.
        group: the group.
        labels: the number of labels of the graph.

    Returns:
        int64[C_in], indices into `group.units`; len(group.units) for a channel that the group does not hold.
    """
    where = np.full(labels, len(group.units))
    where[group.units] = np.arange(len(group.units))
    own = where[reader.units]
    return own if (own < len(group.units)).any() else where[reader.heads]


def _is_stack(groups: Groups, contraction: Contraction) -> bool:
    """Whether a product of activations is a stack of one product per sample; parts have to come last in the stack."""
    x, factor = contraction.x, contraction.factor
    if factor is None or x.meta["val"].dim() < 3 or x.meta["val"].shape[:-2] != factor.meta["val"].shape[:-2]:
        return False
    rank = x.meta["val"].dim()
    if contraction.dim != rank - 1:
        return False
    axes = groups.labelled.axes[x]
    parts = axes.ragged[rank - 1].parts if rank - 1 in axes.ragged else ()
    return parts == tuple(range(rank - 2 - len(parts), rank - 2))

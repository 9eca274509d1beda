"""Zeroing: puts the zeros into a network, measures the errors of its layers, and finds channels that no layer reads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.certificate import measured_error
from pfpcli.graph.graph import Graph, fetch
from pfpcli.sparsity.choose import Chosen
from pfpcli.sparsity.weights import Weights, parameter, view_of


def zero_weights(graph: Graph, slicing: Slicing, found: Sequence[Weights], chosen: Sequence[Chosen]) -> None:
    """Multiply the weights of a network with their factors, in place.

    Args:
        graph: the original or a cut network; its tensors change.
        slicing: what the plan of this network leaves of every tensor.
        found: the tensors of weights.
        chosen: the factors of each tensor.
    """
    for each, one in zip(found, chosen, strict=True):
        tensor: Tensor = fetch(graph.module, each.target)
        with torch.no_grad():
            factor = slicing.slice(each.node, one.factor).to(tensor)
            # a product of a negative weight and 0 is -0: set 0 itself, because files compress better with equal zeros
            tensor.copy_(torch.where(factor == 0, 0.0, tensor * factor))


def layer_errors(task: Task, found: Sequence[Weights], chosen: Sequence[Chosen]) -> list[float]:
    """Return for each tensor the largest error of an output of the layers that read with it, relative to |W| |a|.

    Each layer is measured by itself: its inputs are those in the original.

    Args:
        task: the network and the images to measure on.
        found: the tensors of weights.
        chosen: the factors of each tensor.
    """
    by_reader = {
        id(reader): (i, each.there(reader, each.tensor * one.factor))
        for i, (each, one) in enumerate(zip(found, chosen, strict=True))
        for reader in each.readers
    }
    largest = [0.0] * len(found)

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        i, new = by_reader[id(reader)]
        for columns in reader.pieces(x, weight):
            largest[i] = max(largest[i], float(measured_error(columns, new.to(columns.weight)).max()))

    with task.groups.labelled.graph.on(task.device):
        task.walk(look, [reader for each in found for reader in each.readers])
    return [processes.largest(error) for error in largest]


def dead_units(groups: Groups, readers: Sequence[Reader], sparse: Graph) -> NDArray[np.bool_]:
    """Return the units whose channels no layer reads any more: bool[labels].

    To drop them must change no output, so a group that a statistic across channels reads has no dead units.

    Args:
        groups: the groups of the network.
        readers: the layers that read channels.
        sparse: the network with zeros in place.
    """
    read, needed = np.zeros(len(groups.root), dtype=bool), np.zeros(len(groups.root), dtype=bool)
    by_contraction = {id(reader.contraction): reader for reader in readers if reader.has_weights}
    for contraction in groups.labelled.contractions:
        units = groups.root[contraction.labels.numpy()]
        read[units] = True
        reader = by_contraction.get(id(contraction))
        if reader is None:
            needed[units] = True
            continue
        base: Tensor = fetch(sparse.module, str(parameter(reader.weight).target)).detach()
        matrix = reader.matrix(view_of(reader.weight, base))
        # [G, J] are all channels once, or several times
        needed[units[(matrix != 0).any(3).any(1).view(-1, len(units)).any(0).numpy()]] = True
    can_go = np.zeros(len(groups.root), dtype=bool)
    for group in groups.prunable:
        can_go[group.units] = not group.inexact
    can_go[list(groups.owned)] = False
    dead: NDArray[np.bool_] = read & ~needed & can_go
    return dead


def dead_channels(groups: Groups, dead: NDArray[np.bool_]) -> int:
    """Return the number of channels of the dead units; dead: bool[labels]."""
    # the width of a group is that of one unit of every part
    return sum(int(dead[group.units].sum()) * group.width // len(group.rows) for group in groups.prunable)

"""Criteria that look at weights alone: no images go through the network.

The filter of a channel is its row in the weights of a layer that makes it. A unit that several layers make (a residual
sum), or that a layer makes several times (a map made by a linear layer), has several filters.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli.activations.task import Task
from pfpcli.errors import UnsupportedError
from pfpcli.scoring.scores import Scores

#: Calls that scale every channel by a weight of its own, after taking its mean and variance out: (x, weight, ...).
_BATCH_NORMS = ("aten.batch_norm", "aten._native_batch_norm_legit_no_training", "aten.native_batch_norm")


def uniform(task: Task) -> Scores:
    """Drawn at random: what every other criterion has to be better than."""
    return Scores(np.random.default_rng(task.seed).random(len(task.groups.root)))


def l1(task: Task) -> Scores:
    """Sum of the absolute weights of a unit's filters.

    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017. Where several layers make a unit, the authors
    let one of them decide; here the filters of all count as one long filter, as in the group norms of DepGraph (Fang
    et al., CVPR 2023).
    """
    return Scores(_powers(task, 1))


def l2(task: Task) -> Scores:
    """Euclidean norm of a unit's filters, all of them as one long filter; sources as for `l1`."""
    return Scores(np.sqrt(_powers(task, 2)))


def fpgm(task: Task) -> Scores:
    """Sum of the distances of a filter to all filters of its layer; for a unit with several filters, their sum.

    What is close to the geometric median of a layer can be replaced by the others.

    Source: He et al., Filter Pruning via Geometric Median, CVPR 2019, equation 6.
    """
    unit = task.nothing()
    for units, filters in _filters(task):
        np.add.at(unit, units, torch.cdist(filters, filters).sum(1).numpy())
    return Scores(unit)


def bn(task: Task) -> Scores:
    """Absolute scale of the batch norm a channel goes through; the mean, where there are several.

    In groups where a channel goes through none, `l1` decides; it is compared within the group alone.

    Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017.

    Raises:
        UnsupportedError: the network has no batch norm with scales on channels that may go.
    """
    groups = task.groups
    total, count = np.zeros(len(groups.root)), np.zeros(len(groups.root))
    for units, scale in _scales(task):
        np.add.at(total, units, scale)
        np.add.at(count, units, 1)
    unit = task.nothing()
    channels = [group for group in groups.prunable if not np.isnan(unit[group.units]).any()]
    without = [group for group in channels if not count[group.units].all()]
    if len(without) == len(channels):
        raise UnsupportedError(
            "--criterion bn: no channel that may go runs through a batch norm with scales", "use `--criterion l1`"
        )
    norms = _powers(task, 1)
    for group in channels:
        there = bool(count[group.units].all())
        unit[group.units] = total[group.units] / count[group.units] if there else norms[group.units]
    if not without:
        return Scores(unit)
    names = ", ".join(group.name for group in without[:3]) + (" and others" if len(without) > 3 else "")
    remark = f"no batch norm on {len(without)} of {len(channels)} groups ({names}): criterion l1 decided there"
    return Scores(unit, remarks=(remark,))


def _powers(task: Task, p: int) -> NDArray[np.float64]:
    """float64[labels], sum of |w|^p over the filters of each unit."""
    unit = task.nothing()
    for units, filters in _filters(task):
        np.add.at(unit, units, filters.abs().pow(p).sum(1).numpy())
    return unit


def _filters(task: Task) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """The filters of every layer: their units, int64[F], and float64[F, J * R]; weights that layers share come once."""
    graph = task.groups.labelled.graph
    seen: set[int] = set()
    for reader in task.readers:
        issued = reader.contraction.issued
        if not reader.has_weights or issued is None or id(graph.tensor(reader.weight)) in seen:
            continue
        seen.add(id(graph.tensor(reader.weight)))
        matrix = reader.matrix(graph.tensor(reader.weight).detach().cpu().double())
        yield task.groups.root[issued.numpy()], matrix.flatten(0, 1).flatten(1)


def _scales(task: Task) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float64]]]:
    """The scales of every batch norm: their units, int64[C], and float64[C]."""
    labelled = task.groups.labelled
    for node in labelled.graph.nodes:
        weight = node.args[1] if str(node.target).startswith(_BATCH_NORMS) else None
        labels = labelled.axes[weight].labels.get(0) if isinstance(weight, Node) else None
        if isinstance(weight, Node) and labels is not None:
            scale = labelled.graph.tensor(weight).detach().abs().cpu().double()
            yield task.groups.root[labels.numpy()], scale.numpy()

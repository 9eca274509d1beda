"""Criteria that look at the weights alone and need no images.

The filter of a channel is its row in the weights of the layer that makes it. A unit has several filters if several
layers make it (a residual sum), or if a layer makes it several times (a linear layer that makes a map).
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

#: Batch norms, called as (x, weight, ...).
_BATCH_NORMS = ("aten.batch_norm", "aten._native_batch_norm_legit_no_training", "aten.native_batch_norm")


def uniform(task: Task) -> Scores:
    """Score at random: the baseline for every other criterion."""
    return Scores(np.random.default_rng(task.seed).random(len(task.groups.root)))


def l1(task: Task) -> Scores:
    """Score by the sum of the absolute weights of a unit's filters.

    Source: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017. Where several layers make a unit, the authors
    let one of them decide. Here the filters of all these layers count as one long filter, as in the group norms of
    DepGraph (Fang et al., CVPR 2023).
    """
    return Scores(_powers(task, 1))


def l2(task: Task) -> Scores:
    """Score by the Euclidean norm of a unit's filters, which count as one long filter; sources as for `l1`."""
    return Scores(np.sqrt(_powers(task, 2)))


def fpgm(task: Task) -> Scores:
    """Score by the sum of the distances of a filter to all filters of its layer, summed over a unit's filters.

    A filter near the geometric median of its layer can be replaced by the others.

    Source: He et al., Filter Pruning via Geometric Median, CVPR 2019, equation 6.
    """
    unit = task.zero_scores()
    for units, filters in _filters(task):
        np.add.at(unit, units, torch.cdist(filters, filters).sum(1).numpy())
    return Scores(unit)


def bn(task: Task) -> Scores:
    """Score by the absolute scale of the batch norm of a channel; the mean, where there are several batch norms.

    A group in which some unit has no batch norm is scored by `l1`. Its scores compare only within the group.

    Source: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017.

    Raises:
        UnsupportedError: no prunable group has batch norms with scales.
    """
    groups = task.groups
    total, count = np.zeros(len(groups.root)), np.zeros(len(groups.root))
    for units, scale in _scales(task):
        np.add.at(total, units, scale)
        np.add.at(count, units, 1)
    unit = task.zero_scores()
    channels = [group for group in groups.prunable if not np.isnan(unit[group.units]).any()]
    without = [group for group in channels if not count[group.units].all()]
    if len(without) == len(channels):
        raise UnsupportedError(
            "--criterion bn: no prunable channel has a batch norm with scales", "use `--criterion l1`"
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
    """Return the sum of |w|^p over the filters of each unit: float64[labels]."""
    unit = task.zero_scores()
    for units, filters in _filters(task):
        np.add.at(unit, units, filters.abs().pow(p).sum(1).numpy())
    return unit


def _filters(task: Task) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
    """Yield the units, int64[F], and the filters, float64[F, J * R], of every layer; shared weights come once."""
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
    """Yield the units, int64[C], and the absolute scales, float64[C], of every batch norm."""
    labelled = task.groups.labelled
    for node in labelled.graph.nodes:
        weight = node.args[1] if str(node.target).startswith(_BATCH_NORMS) else None
        labels = labelled.axes[weight].labels.get(0) if isinstance(weight, Node) else None
        if isinstance(weight, Node) and labels is not None:
            scale = labelled.graph.tensor(weight).detach().abs().cpu().double()
            yield task.groups.root[labels.numpy()], scale.numpy()

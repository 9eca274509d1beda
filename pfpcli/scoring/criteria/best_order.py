"""The best of several orders: each group is ordered by the criterion whose order its layers can compensate best."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from pfpcli.activations.gram_matrices import Gram, fitted_gram_batches
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Group
from pfpcli.scoring.criteria.activations import WeightActivation
from pfpcli.scoring.criteria.one_walk import in_one_walk
from pfpcli.scoring.criteria.sensitivity import Sensitivity
from pfpcli.scoring.criteria.weights import l2
from pfpcli.scoring.scores import Scores

#: The fractions of its channels to which a group is cut to compare orders.
WIDTHS = (0.75, 0.5)


def auto(task: Task) -> Scores:
    """Score each group by the best of the sensitivity, the norm of the weights, and weights times activations.

    A group is cut to three quarters and to half of its channels in each order. The layers that read it are refitted to
    one half of the fitting images; the errors on the other half, relative to the variance of their outputs, are added
    up. The score of a unit is its rank in the best order, between 0 and 1. A group whose layers cannot be refitted is
    ordered by the sensitivity. The sensitivities of the layers are kept, so errors are bounded as for `sensitivity`.
    """
    shares, activations = in_one_walk(task, Sensitivity(task), WeightActivation(task))
    candidates = [shares.unit, l2(task).unit, activations.unit]
    unit = shares.unit.copy()
    for batch in fitted_gram_batches(task, task.groups.prunable, keep=True):
        for group, grams in batch:
            scored = [each for each in candidates if not np.isnan(each[group.units]).any()]
            if grams and len(scored) > 1:
                orders = [_order(group, each) for each in scored]
                best = orders[int(np.argmin(_errors(task, orders, grams)))]
                unit[best] = np.linspace(1, 0, group.positions + 1)[:-1, None]
    return Scores(unit, shares.layers)


def _order(group: Group, scores: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the units of a group from the best to the worst, the k-th best of all parts together: int64[n, parts]."""
    ranks = np.argsort(-scores[group.rows], axis=1, kind="stable")
    return np.take_along_axis(group.rows, ranks, 1).T


def _errors(task: Task, orders: list[NDArray[np.int64]], grams: list[Gram]) -> NDArray[np.float64]:
    """Return the error of the layers that read a group for each order in which it is cut: float64[orders]."""
    positions = len(orders[0])
    counts = sorted({max(1, round(width * positions)) for width in WIDTHS}, reverse=True)
    alive = [[torch.from_numpy(task.groups.alive(each[count:].reshape(-1))) for count in counts] for each in orders]
    found: NDArray[np.float64] = np.sum([gram.errors(alive) for gram in grams], axis=(0, 2))
    return found

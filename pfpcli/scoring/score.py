"""Score: every unit gets a score by a criterion.

Criteria keep only sums or maxima over the images, so the order of the images, the batch size and the device do not
matter beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.registry import resolve
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.scoring.scores import Counter, Scores


def score(criterion: str, task: Task) -> Scores:
    """Score every unit that some layer reads.

    Args:
        criterion: one of `criteria.CRITERIA`.
        task: the network and its scoring images.
    """
    function: Callable[[Task], Scores] = resolve("pfpcli.scoring.criteria", CRITERIA[criterion].function)
    counted = Counter(task.batches)
    with task.groups.labelled.graph.on(task.device):
        scores = function(replace(task, batches=counted))
    found = replace(scores, unit=_of_read_units(scores.unit, task), samples=counted.most)
    # all processes have the same sums, but their devices may compute scores that differ in the last digit
    return processes.of_first(lambda: found)


def _of_read_units(unit: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """Return the scores of the units that layers read, and nan for all others: every criterion scores the same units.

    A head without a score of its own gets the sum of the scores of its units.
    """
    read = np.zeros(len(unit), dtype=bool)
    for reader in task.readers:
        read[reader.units] = read[reader.heads] = True
    read[0] = False
    found = np.where(read, unit, np.nan)
    for head, owned in task.groups.owned.items():
        if read[head] and np.isnan(found[head]):
            found[head] = np.nansum(found[owned])
    return found

"""Score: every unit gets a number that says how much it matters, by the criterion that was asked for.

A criterion that looks at activations streams: only what it sums up or the largest it has seen stays. The order of the
images, the batch size and the device do not matter beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module

import numpy as np
from numpy.typing import NDArray

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.scoring.scores import Counter, Scores


def score(criterion: str, task: Task) -> Scores:
    """Score every unit that a reader reads.

    Args:
        criterion: one of `pfpcli.scoring.criteria.CRITERIA`.
        task: what to score on.
    """
    module, _, name = CRITERIA[criterion].function.partition(":")
    function: Callable[[Task], Scores] = getattr(import_module(f"pfpcli.scoring.criteria.{module}"), name)
    counted = Counter(task.progress)
    with task.groups.labelled.graph.on(task.device):
        scores = function(replace(task, progress=counted))
    found = replace(scores, unit=_of_readers(scores.unit, task), samples=counted.most)
    # what was combined is the same for all, but what devices make of it may differ in the last digit
    return processes.of_first(lambda: found)


def _of_readers(unit: NDArray[np.float64], task: Task) -> NDArray[np.float64]:
    """The scores of what readers read, nan elsewhere: every criterion scores the same units.

    A head without a score of its own gets the sum of what it owns.
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

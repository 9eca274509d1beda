"""One walk: several criteria look at the same pass over the scoring images."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from pfpcli.activations.task import Task
from pfpcli.channels.reading_layers import Reader
from pfpcli.scoring.scores import Scores


class Looking(Protocol):
    """A criterion that looks at what each layer reads, and then scores."""

    def look(self, reader: Reader, x: Tensor, weight: Tensor) -> None:
        """See what a layer reads of some images, as `walk.Look`."""

    def scores(self) -> Scores:
        """Return the scores, from the images of all processes."""


def in_one_walk(task: Task, *criteria: Looking) -> list[Scores]:
    """Return the scores of each criterion."""

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        for each in criteria:
            each.look(reader, x, weight)

    task.walk(look)
    return [each.scores() for each in criteria]

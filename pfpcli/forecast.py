"""Forecast: how long the steps ahead of a run will take, from the steps that are done.

How long a step takes depends on the network, the images and the machine. How much longer it takes than an earlier step
depends on them far less, so a run that has scored its channels can say when it will end, about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple


class Like(NamedTuple):
    """The expected time of a step: so many times that of an earlier step.

    Attributes:
        step: the earlier step.
        times: the ratio.
    """

    step: str
    times: float


@dataclass(frozen=True)
class Forecast:
    """The expected times of the steps of a run.

    Attributes:
        expected: the steps that will run, in order.
    """

    expected: Mapping[str, Like]

    def after(self, name: str, taken: Mapping[str, float]) -> float | None:
        """Return the seconds that all steps after one will take, about; None if nothing can be said yet.

        Args:
            name: of the step.
            taken: the seconds of the steps that have done their work in this run.
        """
        names = [*self.expected]
        if name not in names:
            return None
        ahead = [self.expected[each] for each in names[names.index(name) + 1 :]]
        if any(like.step not in taken for like in ahead):
            return None
        return sum(like.times * taken[like.step] for like in ahead)

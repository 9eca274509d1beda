"""The part of a run's record about the search for the smallest network whose quality falls by at most so much."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Fall:
    """How far a metric falls from the original to another network.

    Attributes:
        metric: name of the metric.
        unit: "pp" for a quality from 0 to 1, whose falls are shown in percentage points; "dB"; or "" for a metric of
            the user.
        before, after: the metric of the original and of the other network.
        low, high: the ends of the 95 % confidence interval of the fall; None where the images are not known one by one.
        images: number of images; None where it is not known.
        source: which images these are.
    """

    metric: str
    unit: str
    before: float
    after: float
    low: float | None
    high: float | None
    images: int | None
    source: str

    @property
    def fall(self) -> float:
        """The fall; below 0 where the other network is better."""
        return self.before - self.after


@dataclass
class SearchedPoint:
    """A network that was tried.

    Attributes:
        keep: the keep ratio that was asked for.
        achieved: the keep ratio of the network; None where there is no such network.
        fall: how far its metric falls; None where there is no such network.
        within: whether it falls by no more than was asked for.
    """

    keep: float
    achieved: float | None
    fall: float | None
    within: bool


@dataclass
class Search:
    """The search for the smallest network whose quality falls by at most so much.

    Attributes:
        asked: the largest fall that was asked for.
        achieved: the fall of the network on the images that chose it.
        confirmed: its fall on images that nothing has used; None where there are too few.
        points: the networks that were tried, in order.
    """

    asked: float
    achieved: Fall
    confirmed: Fall | None
    points: list[SearchedPoint]

    @property
    def told(self) -> Fall:
        """The fall that counts: on images that nothing has used, where there are some."""
        return self.confirmed or self.achieved

"""The record of the quality on damaged images."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass
class Damage:
    """The quality under one corruption, one number for each strength.

    Attributes:
        corruption: one of `pfpcli.images.corruptions.CORRUPTIONS`.
        constants: its strengths, in its own unit.
        before, after: the metric of the original and of the result.
        margins: by how much more than on undamaged images the metric may fall by chance: the 95 % confidence interval
            of the difference, or 2 points where there is none.
    """

    corruption: str
    constants: list[float]
    before: list[float] = field(default_factory=list)
    after: list[float] = field(default_factory=list)
    margins: list[float] = field(default_factory=list)


@dataclass
class Robustness:
    """The quality on undamaged and damaged images.

    Attributes:
        metric: as in `Quality`.
        constants_of: where the constants are from: "ImageNet-C" or "CIFAR-10-C".
        n: number of images.
        source: which images these are.
        before, after: the metric on the undamaged images.
        damages: one for each corruption.
    """

    metric: str
    constants_of: str
    n: int
    source: str
    before: float
    after: float
    damages: list[Damage]

"""The largest fall of a quality, as it is typed: `1%`, `0.02` or `0.5dB`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import isfinite

from pfpcli.errors import InputError
from pfpcli.settings.text import parse_share

DECIBELS = "dB"


@dataclass(frozen=True)
class MaxDrop:
    """How far a quality may fall.

    Attributes:
        most: the largest fall: of a quality from 0 to 1, in decibels, or in the unit of the user's metric.
        unit: "dB" for decibels, "" otherwise.
    """

    most: float
    unit: str = ""

    def __post_init__(self) -> None:
        """Refuse a fall that is no number from 0 up."""
        if not (isfinite(self.most) and self.most >= 0):
            raise InputError(f"--max-drop {self}: expected a number from 0 up", "e.g. `--max-drop 1%`")

    def __str__(self) -> str:
        """The fall as it can be typed, e.g. `0.01` or `0.5dB`."""
        return f"{self.most:g}{self.unit}"

    def recorded(self) -> float | str:
        """The value in a record: a number, or a text such as `0.5dB`."""
        return str(self) if self.unit else self.most


def parse_max_drop(text: str) -> MaxDrop:
    """Return `1%`, `0.02` or `0.5dB` as a fall.

    Raises:
        InputError: it is not a number, or below 0.
    """
    decibels = re.fullmatch(rf"\s*(.*?)\s*{DECIBELS}\s*", text, re.IGNORECASE)
    value = parse_share("--max-drop", decibels[1] if decibels else text, "1%, 0.02 or 0.5dB")
    return MaxDrop(value, DECIBELS if decibels else "")

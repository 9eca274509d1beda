"""Certified: what `pfp certify` found, as plain values. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

#: Raised when a field changes its meaning or goes.
SCHEMA_VERSION = 1


@dataclass
class LayerChecked:
    """The error of one layer, relative to what its sums are made of.

    Attributes:
        name: of the layer.
        bound: what it is at most on the images that scored; None where the run has no bound.
        measured: the largest on the run's own held-out images.
        here: the largest on these images.
    """

    name: str
    bound: float | None
    measured: float | None
    here: float

    @property
    def is_said(self) -> bool:
        """Whether the bound says anything: an error of 1 is any error."""
        return self.bound is not None and self.bound < 1

    @property
    def is_above(self) -> bool:
        """Whether these images show a larger error than the bound; it was proven for others."""
        return self.is_said and self.bound is not None and self.here > self.bound


@dataclass
class Certified:
    """A run checked on other images.

    Attributes:
        run: name of the run folder.
        model: name of the original model.
        folder: name of the folder of images.
        images: how many.
        layers: in the order they run.
    """

    run: str
    model: str
    folder: str
    images: int
    layers: list[LayerChecked]
    schema_version: int = SCHEMA_VERSION

    def json(self) -> str:
        """The findings as text."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

"""The document of `pfp certify`: the errors of a run's layers on other images."""

from __future__ import annotations

from dataclasses import dataclass

from pfpcli.records.document import Document


@dataclass
class LayerChecked:
    """The error of one layer, relative to the sum of the sizes of the terms it adds up.

    Attributes:
        name: name of the layer.
        bound: upper bound of the error on the scoring images; None where the run has no bound.
        measured: largest error on the run's own held-out images.
        here: largest error on the images of this check.
    """

    name: str
    bound: float | None
    measured: float | None
    here: float

    @property
    def is_said(self) -> bool:
        """Whether the bound is below 1; no error is above 1."""
        return self.bound is not None and self.bound < 1

    @property
    def is_above(self) -> bool:
        """Whether the error on these images is above the bound, which holds for the scoring images."""
        return self.is_said and self.bound is not None and self.here > self.bound


@dataclass
class Certified(Document):
    """A run that was checked on other images.

    Attributes:
        run: name of the run folder.
        model: name of the original model.
        folder: name of the folder of images.
        images: number of images.
        layers: the errors, in the order in which the layers run.
        schema_version: version of the fields. 1: the first one.
    """

    run: str
    model: str
    folder: str
    images: int
    layers: list[LayerChecked]
    schema_version: int = 1

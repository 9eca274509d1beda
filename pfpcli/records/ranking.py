"""The document of `pfp score`: the scores of all channels that can be dropped."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document


@dataclass
class LayerRanked:
    """The sensitivities at one layer, one for each channel that it reads."""

    name: str
    sensitivity: list[float]


@dataclass
class GroupRanked:
    """The scores of one group, one for each position that can be dropped."""

    name: str
    score: list[float]


@dataclass
class Ranking(Document):
    """The scores of a network.

    Attributes:
        model: name, kind, sha256 and input size.
        criterion: name of the criterion.
        reduce: how the sensitivities of the weights of a kernel are joined.
        samples: number of scoring images.
        calibration: folder, numbers of images, and preprocessing.
        layers: the sensitivities, in the order in which the layers run; empty where the criterion measures none.
        groups: the scores of the groups that can be pruned.
        warnings: what a user should know about the scores.
        schema_version: version of the fields. 1: the first one.
    """

    model: dict[str, Any]
    criterion: str
    reduce: str
    samples: int
    calibration: dict[str, Any]
    layers: list[LayerRanked]
    groups: list[GroupRanked]
    warnings: list[str]
    schema_version: int = 1

    def csv(self) -> str:
        """Write the scores as CSV with the columns kind (layer or group), name, channel and score."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("kind", "name", "channel", "score"))
        for layer in self.layers:
            rows.writerows(("layer", layer.name, i, repr(value)) for i, value in enumerate(layer.sensitivity))
        for group in self.groups:
            rows.writerows(("group", group.name, i, repr(value)) for i, value in enumerate(group.score))
        return out.getvalue()

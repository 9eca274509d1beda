"""Ranking: what `pfp score` found, as plain values. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import asdict, dataclass
from typing import Any

#: Raised when a field changes its meaning or goes.
SCHEMA_VERSION = 1


@dataclass
class LayerRanked:
    """The sensitivities at one layer: one for each channel it reads."""

    name: str
    sensitivity: list[float]


@dataclass
class GroupRanked:
    """The scores of a group of channels, one for each that can go on its own."""

    name: str
    score: list[float]


@dataclass
class Ranking:
    """The scores of a network.

    Attributes:
        model: name, kind, sha256 and input size.
        criterion: how channels were scored.
        reduce: sensitivity over the positions of a kernel.
        samples: images scored.
        calibration: folder, counts and preprocessing.
        layers: in the order they run; none where the criterion measures no sensitivities.
        groups: those that may be cut.
        warnings: what a user should know about the scores.
    """

    model: dict[str, Any]
    criterion: str
    reduce: str
    samples: int
    calibration: dict[str, Any]
    layers: list[LayerRanked]
    groups: list[GroupRanked]
    warnings: list[str]
    schema_version: int = SCHEMA_VERSION

    def json(self) -> str:
        """The scores as JSON."""
        return json.dumps(asdict(self), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def csv(self) -> str:
        """The scores as CSV: kind (layer or group), name, channel, score."""
        out = io.StringIO()
        rows = csv.writer(out, lineterminator="\n")
        rows.writerow(("kind", "name", "channel", "score"))
        for layer in self.layers:
            rows.writerows(("layer", layer.name, i, repr(value)) for i, value in enumerate(layer.sensitivity))
        for group in self.groups:
            rows.writerows(("group", group.name, i, repr(value)) for i, value in enumerate(group.score))
        return out.getvalue()

"""The document of `pfp plan`: what a network would keep. Nothing is cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document
from pfpcli.records.parts import Cost, GroupRow, LayerRow


@dataclass
class PlannedNetwork(Document):
    """A plan.

    Attributes:
        model: name, kind, sha256 and input size.
        requested, achieved: as in `Run`.
        before, after: cost of the original and of the network as planned.
        scoring: criterion, allocation, and the plans that were tried.
        calibration: folder, numbers of images, and preprocessing.
        layers: the layers, in the order in which they run.
        groups: the groups of channels.
        settings: every setting.
        warnings: what a user should know about the plan.
        schema_version: version of the fields. 1: the first one.
    """

    model: dict[str, Any]
    requested: dict[str, Any]
    achieved: dict[str, Any]
    before: Cost
    after: Cost
    scoring: dict[str, Any]
    calibration: dict[str, Any]
    layers: list[LayerRow]
    groups: list[GroupRow]
    settings: dict[str, Any]
    warnings: list[str]
    schema_version: int = 1

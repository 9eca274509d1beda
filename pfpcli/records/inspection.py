"""Inspection: what pfp sees in a network before anything is cut; reports read nothing else."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

#: Of the JSON form.
SCHEMA_VERSION = 1


@dataclass
class GroupSeen:
    """One group of channels that go together.

    Attributes:
        name: the layer that makes them.
        size: channels.
        members: layers whose tensors get smaller when one of them goes.
        readers: layers that read them.
        params: parameters that would go if all of them went.
        frozen_reason: why none may go; empty if they may.
        inexact: the statistic across channels that dropping changes; empty if there is none.
    """

    name: str
    size: int
    members: tuple[str, ...]
    readers: tuple[str, ...]
    params: int
    frozen_reason: str
    inexact: str


@dataclass
class Inspection:
    """One network.

    Attributes:
        model: name, kind, sha256 and input size.
        params, macs: what it costs; MACs for one input.
        open: the sizes of the input that are not fixed: "batch", "height", "width".
        stops: the ops it is followed up to, as `Graph.stops`.
        ops: op -> how often it is called.
        unknown: op without a rule -> how often it is called.
        prunable: {params, macs}, the fraction that goes if every group keeps one channel.
        groups: in the order in which their channels are made.
    """

    pfp_version: str
    model: dict[str, Any]
    params: int
    macs: int
    open: tuple[str, ...]
    stops: tuple[str, ...]
    ops: dict[str, int]
    unknown: dict[str, int]
    prunable: dict[str, float]
    groups: list[GroupSeen]

    def json(self) -> str:
        """The whole of it as text."""
        return json.dumps({"schema_version": SCHEMA_VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

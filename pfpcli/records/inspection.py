"""The document of `pfp inspect`: which channels of a network can be pruned, and which cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document


@dataclass
class GroupSeen:
    """One group of channels.

    Attributes:
        name: the layer that computes the channels.
        size: number of channels.
        members: layers whose tensors get smaller when a channel is dropped.
        readers: layers that read the channels.
        params: number of parameters that dropping the whole group would remove.
        frozen_reason: why no channel may be dropped; empty if channels may be dropped.
        inexact: the statistic over channels that changes when channels are dropped; empty if there is none.
    """

    name: str
    size: int
    members: tuple[str, ...]
    readers: tuple[str, ...]
    params: int
    frozen_reason: str
    inexact: str


@dataclass
class OutputSeen:
    """What an output says.

    Attributes:
        name: its name, with the range of a part.
        role: one of `pfpcli.outputs.kinds.KINDS`.
        axis: the dimension of the classes; None where there are none.
        why: how the role was told.
    """

    name: str
    role: str
    axis: int | None
    why: str


@dataclass(kw_only=True)
class Inspection(Document):
    """One network.

    Attributes:
        schema_version: version of the fields. 1: the first one.
        pfp_version: version of pfp that looked at the network.
        model: name, kind, sha256 and input size.
        params, macs: number of parameters, and MACs of one input.
        open: the sizes of the input that are free: "batch", "height", "width".
        stops: the ops at which the trace of the network ends, as `Graph.stops`.
        ops: op -> number of calls.
        unknown: op without a rule -> number of calls.
        prunable: {params, macs}, the fractions that are removed if every group keeps one channel.
        groups: the groups, in the order in which their channels are computed.
        outputs: what the outputs say, by the structure of the network alone.
    """

    schema_version: int = 1
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
    outputs: list[OutputSeen]

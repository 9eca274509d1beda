"""The document of `pfp latency`: the time of each layer of a network, predicted and measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document


@dataclass
class LayerTimed:
    """One layer.

    Attributes:
        name: the layer, or the op where it has no weights.
        op: its op, with what is computed together with it.
        channels: (channels it reads, channels it makes).
        predicted_ms: from the table.
        measured_ms: in the whole network; None where the runtime's node could not be told.
        halved_ms: predicted with half of its channels.
    """

    name: str
    op: str
    channels: tuple[int, int]
    predicted_ms: float
    measured_ms: float | None
    halved_ms: float


@dataclass(kw_only=True)
class Latencies(Document):
    """The layers of a network.

    Attributes:
        schema_version: version of the fields. 1: the first one.
        pfp_version: version of pfp that timed the network.
        model: name, kind, sha256 and input size.
        machine: processor, cores, onnxruntime, provider, threads.
        operators: number of operators in the table for this network.
        predicted_ms: the sum of all layers.
        measured_ms: the median of the whole network; quartiles_ms: the distance of its quartiles.
        unknown: ops that are not in the table.
        layers: the layers, in the order in which they run.
        pack: the file that was written for another machine; "" where there is none.
    """

    schema_version: int = 1
    pfp_version: str
    model: dict[str, Any]
    machine: dict[str, Any]
    operators: int
    predicted_ms: float
    measured_ms: float
    quartiles_ms: float
    unknown: list[str]
    layers: list[LayerTimed]
    pack: str = ""

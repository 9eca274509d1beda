"""Settings of `pfp latency`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pfpcli.settings.network import NetworkSettings


@dataclass(frozen=True, kw_only=True)
class LatencySettings(NetworkSettings):
    """Whose layers to time.

    Attributes:
        threads: threads of onnxruntime; None for all cores.
        int8: whether to time the layers with 8-bit weights and activations.
        pack: file to write that times the layers on another machine; None times them here.
    """

    threads: int | None = None
    int8: bool = False
    pack: Path | None = None

"""Settings of `pfp bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.settings.network import NetworkSettings

#: What can run a network.
RUNTIMES = ("onnxruntime", "torch")


@dataclass(frozen=True, kw_only=True)
class BenchSettings(NetworkSettings):
    """Which networks to time, and how. `model`, an ONNX file, a checkpoint or a run folder, is the first.

    Attributes:
        others: further ones, which are compared with the first.
        batches: batch sizes, where the networks take any.
        threads: threads of the runtime; None for all cores.
        runtime: one of `RUNTIMES`.
        provider: of onnxruntime, e.g. "CUDAExecutionProvider".
    """

    others: tuple[Path, ...] = ()
    batches: tuple[int, ...] = (1,)
    threads: int | None = None
    runtime: str = RUNTIMES[0]
    provider: str = "CPUExecutionProvider"

    def __post_init__(self) -> None:
        """Refuse values that could not be timed."""
        super().__post_init__()
        if self.runtime not in RUNTIMES:
            raise InputError(f"--runtime {self.runtime}: expected one of {', '.join(RUNTIMES)}")
        if not self.batches or min(self.batches) < 1:
            raise InputError(f"--batch {','.join(map(str, self.batches))}: expected numbers from 1 up")

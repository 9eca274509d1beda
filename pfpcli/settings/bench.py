"""Settings of `pfp bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pfpcli.errors import InputError

#: What can run a network.
RUNTIMES = ("onnxruntime", "torch")


@dataclass(frozen=True, kw_only=True)
class BenchSettings:
    """Which networks to time, and how.

    Attributes:
        models: ONNX files, checkpoints and run folders; the first is what the others are compared with.
        batches: batch sizes, where the networks take any.
        threads: threads of the runtime; None for all cores.
        runtime: one of `RUNTIMES`.
        provider: of onnxruntime, e.g. "CUDAExecutionProvider".
        input_size: (C, H, W), where the files do not say.
        trust: load pickles that name classes outside the allow-list.
    """

    models: tuple[Path, ...]
    batches: tuple[int, ...] = (1,)
    threads: int | None = None
    runtime: str = RUNTIMES[0]
    provider: str = "CPUExecutionProvider"
    input_size: tuple[int, ...] | None = None
    trust: bool = False

    def __post_init__(self) -> None:
        """Refuse values that could not be timed."""
        if self.runtime not in RUNTIMES:
            raise InputError(f"--runtime {self.runtime}: expected one of {', '.join(RUNTIMES)}")
        for flag, values in (("--batch", self.batches), ("--input-size", self.input_size or (1,))):
            if not values or min(values) < 1:
                raise InputError(f"{flag} {','.join(map(str, values))}: expected numbers from 1 up")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"--threads {self.threads}: expected a whole number from 1 up")

"""The document of `pfp bench`: the latencies of several networks, measured in turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pfpcli.records.document import Document


@dataclass
class Benched:
    """One network at one batch size.

    Attributes:
        name: the file or run folder.
        batch: inputs at a time.
        input_size: shape of one input.
        median_ms: median time of a run.
        quartiles_ms: distance of the quartiles.
        runs: number of timed runs.
        per_second: inputs in a second.
        speed_up: {times, low, high}: how many times as fast it is as the first network, with the confidence interval;
            None for the first.
    """

    name: str
    batch: int
    input_size: list[int]
    median_ms: float
    quartiles_ms: float
    runs: int
    per_second: float
    speed_up: dict[str, float] | None


@dataclass(kw_only=True)
class Bench(Document):
    """Several networks.

    Attributes:
        schema_version: version of the fields. 1: the first one.
        pfp_version: version of pfp that timed them.
        machine: processor, cores, runtime and its version, provider, threads.
        rows: a row for each network and batch size.
    """

    schema_version: int = 1
    pfp_version: str
    machine: dict[str, Any]
    rows: list[Benched]

    @property
    def is_noisy(self) -> bool:
        """Whether other work on the machine makes the figures unsure: quartiles far apart."""
        return any(row.quartiles_ms > NOISY * row.median_ms for row in self.rows)


#: Quartiles that are this part of the median apart say that the machine does other work.
NOISY = 0.15

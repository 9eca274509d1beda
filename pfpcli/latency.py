"""Latency: how long one inference takes in onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from pfpcli.export import run_onnx, session

#: Runs before the clock starts, runs that are timed, and seconds after which a slow model has been timed enough.
WARM_UP, RUNS, SECONDS = 5, 50, 10.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference: median, distance between the quartiles, and how often it was timed."""

    median_ms: float
    iqr_ms: float
    runs: int


def latency(files: Sequence[Path], inputs: Sequence[Tensor], threads: int | None) -> list[Latency]:
    """Time several ONNX files on the same inputs, in turn, so that the machine's moods reach them all.

    Args:
        files: ONNX files with the same inputs.
        inputs: float[N, ...] each.
        threads: of onnxruntime; None uses all cores.
    """
    sessions = [session(file, threads) for file in files]
    times: list[list[float]] = [[] for _ in sessions]
    for each in sessions:
        for _ in range(WARM_UP):
            run_onnx(each, inputs)
    stop = time.perf_counter() + SECONDS
    while len(times[0]) < RUNS and (len(times[0]) < 3 or time.perf_counter() < stop):
        for each, taken in zip(sessions, times, strict=True):
            start = time.perf_counter()
            run_onnx(each, inputs)
            taken.append(1000 * (time.perf_counter() - start))
    return [_summary(taken) for taken in times]


def _summary(taken: list[float]) -> Latency:
    low, median, high = np.percentile(taken, (25, 50, 75))
    return Latency(float(median), float(high - low), len(taken))

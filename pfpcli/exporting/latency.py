"""Latency: how long one inference takes in onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnxruntime import InferenceSession
from torch import Tensor

from pfpcli.onnx_io.runtime import run_onnx, session

#: Files take turns in blocks: some runs before the clock starts (the threads of the other session have to fall asleep,
#: this one's caches have to fill), then the runs that are timed.
WARM_UP, BLOCK, BLOCKS = 5, 10, 5
#: Seconds after which a slow model has been timed enough.
SECONDS = 20.0


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one inference: median, distance between the quartiles, and how often it was timed."""

    median_ms: float
    iqr_ms: float
    runs: int


def latency(files: Sequence[Path | onnx.ModelProto], inputs: Sequence[Tensor], threads: int | None) -> list[Latency]:
    """Time several ONNX files on the same inputs, in turn, so that the machine's moods reach them all.

    Args:
        files: ONNX files with the same inputs, or what they hold.
        inputs: float[N, ...] each.
        threads: of onnxruntime; None uses all cores.
    """
    sessions = [session(file, threads) for file in files]
    times: list[list[float]] = [[] for _ in sessions]
    stop = time.perf_counter() + SECONDS
    for block in range(BLOCKS):
        if block and time.perf_counter() > stop:
            break
        for each, taken in zip(sessions, times, strict=True):
            taken += _timed(each, inputs)
    return [_summary(taken) for taken in times]


def _timed(each: InferenceSession, inputs: Sequence[Tensor]) -> list[float]:
    """Milliseconds of each run of one block."""
    taken = []
    for run in range(WARM_UP + BLOCK):
        start = time.perf_counter()
        run_onnx(each, inputs)
        if run >= WARM_UP:
            taken.append(1000 * (time.perf_counter() - start))
    return taken


def _summary(taken: list[float]) -> Latency:
    low, median, high = np.percentile(taken, (25, 50, 75))
    return Latency(float(median), float(high - low), len(taken))

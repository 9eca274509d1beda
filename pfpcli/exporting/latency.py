"""Latency: the time of one inference in onnxruntime."""

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

#: Each file is run in BLOCKS blocks, in turn with the other files. A block begins with a pause of PAUSE seconds, in
#: which the threads of the other session stop waiting for work: while they wait, they take the cores from this one.
#: Then come WARM_UP runs that are not timed, in which the caches fill, and BLOCK timed runs.
PAUSE, WARM_UP, BLOCK, BLOCKS = 0.05, 5, 10, 5
#: Seconds after which no new block starts.
SECONDS = 20.0


@dataclass(frozen=True)
class Latency:
    """The time of one inference.

    Attributes:
        median_ms: median in ms.
        iqr_ms: distance between the quartiles in ms.
        runs: number of timed runs.
    """

    median_ms: float
    iqr_ms: float
    runs: int


def latency(files: Sequence[Path | onnx.ModelProto], inputs: Sequence[Tensor], threads: int | None) -> list[Latency]:
    """Time ONNX files on the same inputs, in turn, so that changes of the machine's speed affect all of them.

    Args:
        files: ONNX files with the same inputs, or their contents.
        inputs: float[N, ...] for each input.
        threads: number of threads of onnxruntime; None uses all cores.

    Returns:
        One latency for each file.
    """
    sessions = [session(file, threads) for file in files]
    times: list[list[float]] = [[] for _ in sessions]
    stop = time.perf_counter() + SECONDS
    for block in range(BLOCKS):
        if block and time.perf_counter() > stop:
            break
        for each, milliseconds in zip(sessions, times, strict=True):
            milliseconds += _timed(each, inputs)
    return [_summary(milliseconds) for milliseconds in times]


def _timed(each: InferenceSession, inputs: Sequence[Tensor]) -> list[float]:
    """Return the milliseconds of each timed run of one block."""
    milliseconds = []
    time.sleep(PAUSE)
    for run in range(WARM_UP + BLOCK):
        start = time.perf_counter()
        run_onnx(each, inputs)
        if run >= WARM_UP:
            milliseconds.append(1000 * (time.perf_counter() - start))
    return milliseconds


def _summary(milliseconds: list[float]) -> Latency:
    low, median, high = np.percentile(milliseconds, (25, 50, 75))
    return Latency(float(median), float(high - low), len(milliseconds))

"""Files: the time of one inference of whole ONNX files, and how sure the speed-up of one over another is."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx
from torch import Tensor

from pfpcli.onnx_io.runtime import run_onnx, session

#: Each file is run in at least BLOCKS blocks, in turn with the other files. A block begins with a pause of PAUSE
#: seconds, in which the threads of the other session stop waiting for work: while they wait, they take the cores from
#: this one. Then come WARM_UP runs that are not timed, in which the caches fill, and at least BLOCK timed runs, more of
#: a network that takes so little time that they would last less than LEAST seconds.
PAUSE, WARM_UP, BLOCK, BLOCKS, LEAST = 0.05, 2, 5, 9, 0.03
#: There are more blocks, up to the second number, until the interval of a speed-up is twice this part of it wide.
PRECISE, MOST_BLOCKS = 0.03, 27
#: Seconds after which no new block starts.
SECONDS = 20.0
#: A speed-up lies in its interval with about this probability, a little less where blocks were added.
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Latency:
    """The time of one inference.

    Attributes:
        median_ms: median of all timed runs in ms.
        iqr_ms: distance between the quartiles in ms.
        runs: number of timed runs.
        blocks: the median of each block in ms.
    """

    median_ms: float
    iqr_ms: float
    runs: int
    blocks: tuple[float, ...] = ()

    def part_of(self, other: Latency) -> float:
        """Return this latency as a part of another one that was measured together with it, see `speed_up`."""
        return 1 / speed_up(other, self).times


@dataclass(frozen=True)
class SpeedUp:
    """How many times as fast a file is as another one.

    Attributes:
        times: the median of the ratios of their blocks; each block is compared with the one beside it.
        low, high: the ends of its confidence interval.
    """

    times: float
    low: float
    high: float

    @property
    def is_measurable(self) -> bool:
        """Whether the interval excludes that both take the same time."""
        return self.low > 1 or self.high < 1


def speed_up(before: Latency, after: Latency) -> SpeedUp:
    """Return how many times as fast the second file is.

    The interval is that of a median by order statistics (for n ratios, the k-th smallest and the k-th largest, k as
    large as `CONFIDENCE` allows): it assumes nothing about how the times are distributed.

    Args:
        before: of the first file.
        after: of the second file; `latency` has measured both together.
    """
    ratios = np.sort(np.asarray(before.blocks) / np.asarray(after.blocks))
    drop = _dropped(len(ratios))
    return SpeedUp(float(np.median(ratios)), float(ratios[drop]), float(ratios[len(ratios) - 1 - drop]))


def _dropped(n: int) -> int:
    """Return how many of n ordered values may be left out at each end of the interval of the median."""
    drop, outside = 0, 2 * 0.5**n
    while True:
        outside += 2 * math.comb(n, drop + 1) * 0.5**n
        if outside > 1 - CONFIDENCE or drop + 1 > (n - 1) // 2:
            return drop
        drop += 1


def latency(
    files: Sequence[Path | onnx.ModelProto], inputs: Sequence[Tensor], threads: int | None, most: int | None = None
) -> list[Latency]:
    """Time ONNX files on the same inputs.

    Args:
        files: ONNX files with the same inputs, or their contents.
        inputs: float[N, ...] for each input.
        threads: number of threads of onnxruntime; None uses all cores.
        most: the most blocks of each file; None for `MOST_BLOCKS`.

    Returns:
        One latency for each file.
    """
    sessions = [session(file, threads) for file in files]
    return time_in_turn([partial(run_onnx, each, inputs) for each in sessions], most)


def time_in_turn(runs: Sequence[Callable[[], object]], most: int | None = None) -> list[Latency]:
    """Time several inferences in turn, so that changes of the machine's speed affect all of them.

    Args:
        runs: each runs one inference.
        most: the most blocks of each; None for `MOST_BLOCKS`.

    Returns:
        One latency for each.
    """
    times: list[list[list[float]]] = [[] for _ in runs]
    stop = time.perf_counter() + SECONDS
    for block in range(most or MOST_BLOCKS):
        if (block and time.perf_counter() > stop) or (block >= BLOCKS and _is_precise(times)):
            break
        for run, milliseconds in zip(runs, times, strict=True):
            milliseconds.append(_block(run))
    return [_summary(milliseconds) for milliseconds in times]


def _is_precise(times: Sequence[list[list[float]]]) -> bool:
    """Whether the interval of the speed-up of each inference over the first one is narrow enough."""
    first, *others = map(_summary, times)
    found = [speed_up(first, other) for other in others]
    return all(each.high - each.low <= 2 * PRECISE * each.times for each in found)


def _block(run: Callable[[], object]) -> list[float]:
    """Return the milliseconds of each timed run of one block."""
    milliseconds: list[float] = []
    time.sleep(PAUSE)
    for _ in range(WARM_UP):
        run()
    begin = time.perf_counter()
    while len(milliseconds) < BLOCK or time.perf_counter() - begin < LEAST:
        start = time.perf_counter()
        run()
        milliseconds.append(1000 * (time.perf_counter() - start))
    return milliseconds


def _summary(blocks: list[list[float]]) -> Latency:
    milliseconds = np.concatenate([*blocks])
    low, median, high = np.percentile(milliseconds, (25, 50, 75))
    medians = tuple(float(np.median(block)) for block in blocks)
    return Latency(float(median), float(high - low), len(milliseconds), medians)

"""Ranges: the smallest and the largest number of each tensor of an ONNX graph, measured on images.

int8 needs the ranges for its scales, and float16 for the tensors that are too large for it. onnxruntime's own
calibrater measures them: it adds a ReduceMin and a ReduceMax for each tensor to the graph. The number of images doubles
until the last doubling has widened the ranges by little.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, create_calibrator
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor

from pfpcli.exporting.silence import silent
from pfpcli.onnx_io.runtime import session

#: The number of images after which the ranges are looked at for the first time, and the largest number of images.
FIRST, MOST = 8, 128
#: Enough images: the last doubling has widened the ranges of the tensors by this share of their width, on average.
WIDENED = 0.02


class _OneBatch(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime has no types
    """Gives the calibrater one batch: it holds all values of what it is given at once."""

    def __init__(self, name: str, batch: NDArray[np.float32]) -> None:
        self._feeds: Iterator[dict[str, NDArray[np.float32]]] = iter([{name: batch}])

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """Return the batch, then None."""
        return next(self._feeds, None)


def measure_ranges(model: onnx.ModelProto, batches: Iterable[Tensor], scratch: Path) -> tuple[TensorsData, int]:
    """Measure the ranges of the tensors of floats that a model computes.

    Args:
        model: a model with one input.
        batches: float[N, ...] each; at least one.
        scratch: a folder for the files of the calibrater.

    Returns:
        (name of a tensor -> its range, the number of images that were enough).
    """
    file, augmented = scratch / "measured.onnx", scratch / "augmented.onnx"
    onnx.save(model, file)
    with silent():
        calibrater = create_calibrator(
            file, augmented_model_path=str(augmented), calibrate_method=CalibrationMethod.MinMax
        )
        # the calibrater's own session is not optimised and takes several times as long
        calibrater.infer_session = session(augmented)
        (spec,) = calibrater.infer_session.get_inputs()
        images, look, before = 0, FIRST, None
        for batch in batches:
            calibrater.collect_data(_OneBatch(spec.name, batch.numpy()))
            images += len(batch)
            if images < look:
                continue
            ranges, look = _ends(calibrater.compute_data()), 2 * images
            if images >= MOST or (before is not None and _widened(before, ranges) <= WIDENED):
                break
            before = ranges
        found: TensorsData = calibrater.compute_data()
    return found, images


def _ends(ranges: TensorsData) -> NDArray[np.float64]:
    """Return the ends of all ranges: float64[tensors, 2]."""
    ends = [[float(np.asarray(end).item()) for end in each.range_value] for each in ranges.values()]
    return np.array(ends, dtype=np.float64).reshape(-1, 2)


def _widened(before: NDArray[np.float64], after: NDArray[np.float64]) -> float:
    """Return by which share of their width ranges have grown, on average over the tensors."""
    old, new = (np.diff(ends, axis=1).ravel() for ends in (before, after))
    there = np.isfinite(new) & (new > 0)
    return float(((new - old)[there] / new[there]).mean()) if there.any() else 0.0


def largest(ranges: TensorsData, name: str) -> float:
    """Return the largest absolute number of a tensor; 0 for a tensor that was not measured."""
    if name not in ranges:
        return 0.0
    return max(float(np.abs(np.asarray(end)).max()) for end in ranges[name].range_value)

"""The record of a network in several precisions: the float file, and the int8 and float16 files beside it."""

from __future__ import annotations

from dataclasses import dataclass, field

from pfpcli.records.parts import Quality


@dataclass
class Precision:
    """A network in one precision. All files of a run are timed in turn, so their latencies can be compared.

    Attributes:
        name: "float32", "int8" or "fp16".
        file: name of the file in the run folder; None where it could not be written.
        why: why there is no file; "" where there is one.
        file_bytes: size of the file.
        latency_ms: median time that onnxruntime takes for one input.
        latency_iqr_ms: interquartile range of that time.
        quality: of the original and of this file, on the images that judge the run.
        metric: the metric of the user, of this file; None where there is none.
        layers: number of layers.
        in_float: names of the layers that stay in float32.
        distance: squared distance of its outputs from the float file's, relative to their spread; of the output that
            moved most, on checking images.
        calibrated: number of images on which the ranges of its tensors were measured.
        share: its latency as a part of that of the original in this precision; None where no budget counts it.
    """

    name: str
    file: str | None
    why: str = ""
    file_bytes: int | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None
    quality: Quality | None = None
    metric: float | None = None
    layers: int = 0
    in_float: list[str] = field(default_factory=list)
    distance: float | None = None
    calibrated: int = 0
    share: float | None = None

"""Lower precision: a float ONNX network as int8 and as float16 networks, with any of its nodes left in float32.

A `Source` is prepared and measured once. Each conversion then only writes a graph. Nodes that pfp does not compute (the
untouched nodes behind a detector) stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import onnx
from onnxruntime.quantization.calibrate import TensorsData
from torch import Tensor

from pfpcli.exporting.float_blocks import in_blocks
from pfpcli.exporting.fp16 import halved, not_needed, overflowing
from pfpcli.exporting.int8 import layer_groups, layer_names, prepared, quantised, released
from pfpcli.exporting.ranges import measure_ranges
from pfpcli.onnx_io.file import read_model

#: Reads a file, or the part of it that pfp computes, with its channels first.
Reading = Callable[[Path], Path | onnx.ModelProto]


@dataclass(frozen=True)
class Source:
    """A float network that is converted.

    Attributes:
        original: the model of its file.
        model: the same, prepared for the tools of onnxruntime.
        outputs: the values that pfp compares.
        blocks: names of nodes of `model`, in the blocks that stay in float32 or do not.
        ranges: name of a tensor -> its range.
        images: the number of images on which the ranges were measured.
    """

    original: onnx.ModelProto
    model: onnx.ModelProto
    outputs: tuple[str, ...]
    blocks: list[tuple[str, ...]]
    ranges: TensorsData
    images: int

    @cached_property
    def overflowing(self) -> frozenset[str]:
        """The nodes with numbers that are too large for float16."""
        return frozenset(overflowing(self.model, self.ranges))

    @cached_property
    def not_needed(self) -> frozenset[str]:
        """The nodes that the outputs do not depend on."""
        return frozenset(not_needed(self.model, self.outputs))

    def nodes(self, blocks: Iterable[int]) -> frozenset[str]:
        """Return the nodes of some blocks."""
        return frozenset(name for block in blocks for name in self.blocks[block])

    def layers(self, nodes: Iterable[str]) -> list[str]:
        """Return the names of the layers among some nodes."""
        return layer_names(self.model, nodes)


def source_of(file: Path, as_read: Reading, batches: Iterable[Tensor], scratch: Path) -> Source:
    """Prepare a float network and measure its ranges.

    Args:
        file: its ONNX file.
        as_read: reads the part of a file that pfp computes.
        batches: float[N, C, H, W] each, the images to measure on; only as many as are enough are read.
        scratch: a folder for temporary files.

    Raises:
        CannotConvert: its opset is too old.
    """
    original = read_model(file)
    outputs = tuple(each.name for each in _loaded(as_read(file)).graph.output)
    model = prepared(original, outputs, scratch)
    written = scratch / "float.onnx"
    onnx.save(model, written)
    ranges, images = measure_ranges(_loaded(as_read(written)), batches, scratch)
    return Source(original, model, outputs, in_blocks(layer_groups(model, outputs)), ranges, images)


def _loaded(model: Path | onnx.ModelProto) -> onnx.ModelProto:
    return onnx.load(model) if isinstance(model, Path) else model


def _as_int8(source: Source, in_float: frozenset[str]) -> onnx.ModelProto:
    wanted = source.nodes(range(len(source.blocks))) - in_float
    return quantised(source.model, source.ranges, wanted) if wanted else source.model


def _as_fp16(source: Source, in_float: frozenset[str]) -> onnx.ModelProto:
    return halved(source.model, in_float | source.overflowing | source.not_needed)


#: Precision -> the function that converts a source; the nodes of its second argument stay in float32. The result has
#: the outputs of the prepared model.
CONVERSIONS: dict[str, Callable[[Source, frozenset[str]], onnx.ModelProto]] = {"int8": _as_int8, "fp16": _as_fp16}


def converted(source: Source, precision: str, in_float: frozenset[str]) -> onnx.ModelProto:
    """Return a source in a precision, with the outputs of its file.

    Args:
        source: the float network.
        precision: one of `CONVERSIONS`.
        in_float: the nodes that stay in float32.
    """
    return released(CONVERSIONS[precision](source, in_float), source.original)

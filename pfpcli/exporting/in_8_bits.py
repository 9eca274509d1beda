"""In 8 bits: networks that take the time of their int8 files, and compute nothing of use.

Their ranges are made up, so no image is needed and no weight has to be right.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData

from pfpcli.exporting.int8 import prepared, quantised, released
from pfpcli.latency.conversion import Conversion

#: A stored tensor with more numbers, all of them the same, is written as its shape.
_FEW = 64


def in_8_bits(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a network with 8-bit weights and activations wherever onnxruntime's quantiser knows the op.

    Args:
        model: a float network; it stays unchanged.

    Raises:
        CannotConvert: its opset is too old.
    """
    with tempfile.TemporaryDirectory() as scratch:
        ready = prepared(model, [each.name for each in model.graph.output], Path(scratch))
    names = {name for node in ready.graph.node for name in (*node.input, *node.output) if name}
    made_up = TensorData(lowest=np.float32(-1), highest=np.float32(1))
    ranges = TensorsData(CalibrationMethod.MinMax, dict.fromkeys(names, made_up))
    found = released(quantised(ready, ranges, [node.name for node in ready.graph.node]), model)
    _compact(found.graph)
    return found


def _compact(graph: onnx.GraphProto) -> None:
    """Write stored tensors of one number as their shapes: those of small models."""
    kept, shapes = [], []
    for stored in graph.initializer:
        values = numpy_helper.to_array(stored)
        if values.size <= _FEW or (values != values.flat[0]).any():
            kept.append(stored)
            continue
        name = f"{stored.name}/shape"
        kept.append(numpy_helper.from_array(np.asarray(values.shape, np.int64), name))
        one = numpy_helper.from_array(values.reshape(-1)[:1])
        shapes.append(helper.make_node("ConstantOfShape", [name], [stored.name], name=stored.name, value=one))
    nodes = [*shapes, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(kept)
    graph.node.extend(nodes)


#: How the operators of an int8 file are timed.
INT8 = Conversion("int8", in_8_bits)

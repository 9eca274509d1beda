"""float16: an ONNX network with 16-bit floats inside; its inputs and outputs stay 32-bit floats.

The converter is the one that onnxruntime maintains and ships (`onnxruntime.transformers.float16`), so it needs no
further package. onnxconverter-common, from which it was made, has fewer fixes and one more dependency.
"""

from __future__ import annotations

from collections.abc import Container

import numpy as np
import onnx
from onnx import numpy_helper
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.transformers.float16 import convert_float_to_float16

from pfpcli.exporting.ranges import largest
from pfpcli.exporting.silence import silent
from pfpcli.onnx_io.file import drop_unused, values_read

#: Half of the largest number of float16, since other images have larger numbers than those that were measured.
LARGEST = float(np.finfo(np.float16).max) / 2


def overflowing(model: onnx.ModelProto, ranges: TensorsData) -> list[str]:
    """Return the nodes that read or compute a number which is too large for float16.

    Args:
        model: a model whose nodes have names.
        ranges: of its tensors.
    """
    constants = {each.name: each for each in model.graph.initializer}

    def is_too_large(name: str) -> bool:
        if name in constants and constants[name].data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(constants[name])
            return bool(array.size) and bool(np.abs(array).max() > LARGEST)
        return largest(ranges, name) > LARGEST

    return [node.name for node in model.graph.node if any(map(is_too_large, (*node.input, *node.output)))]


def halved(model: onnx.ModelProto, in_float: Container[str]) -> onnx.ModelProto:
    """Return a model in float16.

    Args:
        model: a model whose nodes have names; it stays unchanged.
        in_float: the nodes that stay in float32.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    with silent():
        made: onnx.ModelProto = convert_float_to_float16(
            found, keep_io_types=True, node_block_list=[node.name for node in found.graph.node if node.name in in_float]
        )
        _drop_repeated(made.graph)
        _read_outputs(made.graph)
        ONNXModel(made).topological_sort()  # the converter appends its casts
        _join_floats(made.graph, {node.name for node in model.graph.node})
    return made


def _drop_repeated(graph: onnx.GraphProto) -> None:
    """Remove the second cast of a constant that several nodes read in float32: the converter adds one for each."""
    made: set[str] = set()
    for index, node in reversed(list(enumerate(graph.node))):
        if made.issuperset(node.output):
            del graph.node[index]
        made.update(node.output)


def _read_outputs(graph: onnx.GraphProto) -> None:
    """Let float32 nodes behind an output read that output, and not another cast of the same value; in place."""
    outputs = {each.name for each in graph.output}
    casts = [node for node in graph.node if node.op_type == "Cast" and node.attribute[0].i == onnx.TensorProto.FLOAT]
    shown = {node.input[0]: node.output[0] for node in casts if node.output[0] in outputs}
    renamed = {node.output[0]: shown[node.input[0]] for node in casts if node.input[0] in shown}
    for node in graph.node:
        node.input[:] = [renamed.get(name, name) for name in node.input]


def _join_floats(graph: onnx.GraphProto, own: Container[str]) -> None:
    """Let float32 nodes read float32: the converter casts what one gives to another to float16 and back.

    Args:
        graph: the converted graph; it is changed.
        own: the nodes that the graph had before.
    """
    added = {node.output[0]: node for node in graph.node if node.op_type == "Cast" and node.name not in own}
    for node in list(added.values()):
        before = added.get(node.input[0])
        if before is not None:
            node.op_type, node.input[0] = "Identity", before.input[0]
            del node.attribute[:]
    drop_unused(graph)


def not_needed(model: onnx.ModelProto, outputs: Container[str]) -> list[str]:
    """Return the nodes of a model that the values do not depend on: they stay as they are."""
    wanted, found = set(), []
    for node in reversed(model.graph.node):
        if any(name in wanted or name in outputs for name in node.output):
            wanted.update(values_read(node))
        else:
            found.append(node.name)
    return found

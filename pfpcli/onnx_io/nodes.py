"""The nodes of an ONNX graph that a network computes, and their constants.

Nodes that depend on constants alone are computed here and become constants.
"""

from __future__ import annotations

import math
from collections.abc import Container, Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from pfpcli.onnx_io.file import op_name
from pfpcli.onnx_io.ops.call import NotRead

#: The most numbers in a constant that is computed here.
MOST_FOLDED = 1 << 28
#: Ops whose output may be far larger than their inputs. Of other ops it is at most the product of two inputs.
_GROWING = frozenset(("ConstantOfShape", "Expand", "EyeLike", "OneHot", "Pad", "Range", "Resize", "Tile", "Upsample"))
#: Inputs of at most this many numbers may be sizes that another size depends on.
_MOST_SIZES = 4096


@dataclass(frozen=True)
class FileNode:
    """A node of the file.

    Attributes:
        op: its type, e.g. "Conv", after its domain if it is not a standard op.
        name: its name, or one made of its type and first output.
        inputs: names of its inputs, "" for an input that it leaves out.
        outputs: names of its outputs.
        attributes: name -> number, string, list or tensor.
        index: its index among the nodes of the graph.
        graph: a graph of this node alone.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    index: int
    graph: onnx.GraphProto


def computed_nodes(
    graph: onnx.GraphProto, untouched: Container[int], version: int
) -> tuple[list[FileNode], dict[str, NDArray[Any]]]:
    """Split a graph into nodes that depend on its input, and constants.

    Args:
        graph: the graph.
        untouched: indices of the nodes to leave out.
        version: the opset.

    Returns:
        The nodes in the order of the file, and name -> array of the constants. A constant that an Identity node
        renames keeps its first name.
    """
    constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
    outputs = {each.name for each in graph.output}
    computed = [(index, node) for index, node in enumerate(graph.node) if index not in untouched]
    wanted = {name for _, node in computed for name in node.input}.union(outputs)
    aliases: dict[str, str] = {}
    found = []
    for index, node in computed:
        inputs = tuple(aliases.get(name, name) for name in node.input)
        if node.op_type == "Constant":
            if node.output[0] in wanted:
                constants[node.output[0]] = _constant(node)
        elif node.op_type == "Identity" and inputs[0] in constants and node.output[0] not in outputs:
            aliases[node.output[0]] = inputs[0]
        elif inputs and all(name in constants for name in inputs if name):
            made = evaluate(_alone(node), [constants[name] if name else None for name in inputs], version)
            constants.update(zip(node.output, made, strict=True))
        else:
            attributes = {each.name: _attribute(each) for each in node.attribute}
            name = node.name or f"{node.op_type}_{node.output[0]}"
            found.append(FileNode(op_name(node), name, inputs, tuple(node.output), attributes, index, _alone(node)))
    return found, constants


def with_own_vectors(
    nodes: list[FileNode], constants: dict[str, NDArray[Any]]
) -> tuple[list[FileNode], dict[str, NDArray[Any]]]:
    """Give every node its own copy of a constant vector, unless two nodes are the same layer.

    Exporters write equal vectors once, such as biases of 0. Layers that share nothing but such a vector are separate
    layers and must not be tied to each other. Two nodes are the same layer if they share their weights, or if they
    share their constants and follow the same layer.

    Args:
        nodes: the nodes in the order of the file.
        constants: name -> array.

    Returns:
        The nodes, which read the copies by new names, and the constants with the copies.
    """
    constants = dict(constants)
    # value -> the layer that it comes from: two vectors behind equal origins are one
    origins: dict[str, Hashable] = {}
    owners: dict[str, list[Hashable]] = {}
    found = []
    for node in nodes:
        held = tuple(name for name in node.inputs if name in constants)
        computed = [name for name in node.inputs if name and name not in constants]
        origin: Hashable = node.name
        if any(sum(size > 1 for size in constants[name].shape) > 1 for name in held):
            origin = held
        elif len(computed) == 1:
            origin = (held, origins.get(computed[0]))
        origins.update(dict.fromkeys(node.outputs, origin))
        inputs = list(node.inputs)
        for slot, name in enumerate(inputs):
            if name in held and _is_vector(constants[name]):
                sharing = owners.setdefault(name, [])
                if (origin, slot) not in sharing:
                    sharing.append((origin, slot))
                if copy := sharing.index((origin, slot)):
                    inputs[slot] = f"{name}.{copy}"
                    constants[inputs[slot]] = constants[name]
        found.append(replace(node, inputs=tuple(inputs)))
    return found, constants


def evaluate(graph: onnx.GraphProto, inputs: Sequence[NDArray[Any] | None], version: int) -> list[NDArray[Any]]:
    """Compute a graph of one node by the reference implementation of the standard.

    Args:
        graph: the graph.
        inputs: one array for each input of the node, None for an input that the node leaves out.
        version: the opset.

    Raises:
        NotRead: the result has more than `MOST_FOLDED` numbers.
    """
    names = graph.node[0].input
    feeds = {name: array for name, array in zip(names, inputs, strict=True) if array is not None}
    if graph.node[0].op_type in _GROWING or sum(array.size for array in feeds.values()) ** 2 > MOST_FOLDED:
        _check_size(graph, feeds, version)
    return [np.asarray(each) for each in ReferenceEvaluator(graph, opsets={"": version}).run(None, feeds)]


def _check_size(graph: onnx.GraphProto, feeds: dict[str, NDArray[Any]], version: int) -> None:
    """Refuse a graph of one node whose outputs would be too large; sizes that onnx cannot infer pass."""
    small = [numpy_helper.from_array(array, name) for name, array in feeds.items() if array.size <= _MOST_SIZES]
    typed = [
        onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
        for name, array in feeds.items()
    ]
    whole = onnx.helper.make_graph(graph.node, "node", typed, graph.output, small)
    model = onnx.helper.make_model(whole, opset_imports=[onnx.helper.make_opsetid("", version)])
    for value in onnx.shape_inference.infer_shapes(model, data_prop=True).graph.output:
        numbers = math.prod(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if numbers > MOST_FOLDED:
            raise NotRead(f"its result has {numbers:,} numbers; at most {MOST_FOLDED:,} are computed")


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Copy an array into a tensor of the same type."""
    if array.dtype.name == "bfloat16":  # a type that onnx adds to numpy; torch cannot read it
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.array(array))


def _alone(node: onnx.NodeProto) -> onnx.GraphProto:
    """Return a graph of one node, without types or sizes of its inputs and outputs."""
    inputs, outputs = (
        [onnx.ValueInfoProto(name=name) for name in names if name] for names in (node.input, node.output)
    )
    return onnx.helper.make_graph([node], "node", inputs, outputs)


def _is_vector(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and array.size > 1 and max(array.shape) == array.size


def _attribute(found: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(found)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return as_tensor(numpy_helper.to_array(value))
    if isinstance(value, (int, float, str, onnx.GraphProto)):
        return value
    return [each.decode() if isinstance(each, bytes) else each for each in value]


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    (attribute,) = node.attribute
    name, value = attribute.name, onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value, np.float32 if "float" in name else np.int64)

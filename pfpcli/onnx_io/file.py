"""ONNX files: reading, checking and changing the protobuf message of a model."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner

from pfpcli.errors import InputError
from pfpcli.images.input_fit import TAKEN_CHANNELS

#: The oldest opset that pfp reads: the first one that broadcasts as numpy does.
OLDEST = 7
#: Element types of the input that pfp reads: 32-bit floats, or no type in the file.
_INPUT_TYPES = ("float", "undefined")
#: Ops that compute with quantised integers. A file with one of them has been quantised.
_QUANTISED = re.compile(r"Q(uantize|Linear)|Dequantize|Integer$|^QGemm|^DynamicQuantize")


def read_model(path: Path) -> onnx.ModelProto:
    """Read a model with its weights, inline its local functions and drop the nodes that no output needs."""
    model = onnx.load(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    drop_unused(model.graph)
    return model


def check_supported(model: onnx.ModelProto, name: str) -> None:
    """Check that pfp can read a model.

    Args:
        model: the model.
        name: name of its file, for messages.

    Raises:
        InputError: the opset is too old, the model is quantised, or it does not have exactly one input of 32-bit
            floats.
    """
    version = opset_of(model)
    if version < OLDEST:
        raise InputError(
            f"{name}: is of opset {version}; pfp reads {OLDEST} and newer",
            f"convert it: `onnx.version_converter.convert_version(model, {OLDEST})`, or export it again",
        )
    if any(_QUANTISED.search(node.op_type) for node in model.graph.node):
        raise InputError(f"{name}: is quantised", "pass the network before quantisation, and quantise the cut network")
    if model.graph.sparse_initializer:
        raise InputError(f"{name}: holds sparse tensors", "export it with dense tensors")
    inputs = graph_inputs(model)
    if len(inputs) != 1:
        named = ", ".join(each.name for each in inputs) or "none"
        raise InputError(f"{name}: has {len(inputs)} inputs ({named}); pfp reads networks of one")
    kind = onnx.TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type).lower()
    if kind not in _INPUT_TYPES:
        of_floats = "pass the network in 32-bit floats, and convert the cut network"
        of_integers = "cut off the conversion to floats: `onnx.utils.extract_model`, or export the network without it"
        hint = of_floats if "float" in kind or kind == "double" else of_integers
        raise InputError(f"{name}: reads images of type {kind}; pfp reads networks of 32-bit floats", hint)


def has_channels_last(model: onnx.ModelProto) -> bool:
    """Whether the input has shape [N, H, W, C], as TensorFlow has it, and not [N, C, H, W].

    The input has channels last if only its last size is a usual number of channels, and if the first convolution reads
    another number of channels than the second size.
    """
    (image,) = graph_inputs(model)
    sizes = sizes_of(image) or ()
    if len(sizes) != 4 or sizes[3] not in TAKEN_CHANNELS or sizes[1] in TAKEN_CHANNELS:
        return False
    read = _channels_read(model.graph, image.name)
    # a multiple of the channels, if the network moves blocks of pixels into channels before its first convolution
    return read is not None and read != sizes[1] and read % sizes[3] == 0


def _channels_read(graph: onnx.GraphProto, image: str) -> int | None:
    """Return the number of input channels of the first convolution after a value; None if its weight is computed."""
    weights = {each.name: each.dims for each in graph.initializer}
    weights |= {each.output[0]: each.attribute[0].t.dims for each in graph.node if each.op_type == "Constant"}
    after = {image}
    for node in graph.node:
        if not after.intersection(node.input):
            continue
        if node.op_type in ("Conv", "ConvTranspose"):
            dims = weights.get(node.input[1])
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            return None if dims is None else dims[1] * groups if node.op_type == "Conv" else dims[0]
        after.update(node.output)
    return None


def opset_of(model: onnx.ModelProto) -> int:
    """Return the opset of the standard ops."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def graph_inputs(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs without the weights, which old files list among the inputs."""
    held = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in held]


def sizes_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Return the sizes of a value, None for a free size; None in place of all sizes if the file has no shape."""
    shape = value.type.tensor_type
    if not shape.HasField("shape"):
        return None
    return tuple(each.dim_value if each.dim_value > 0 else None for each in shape.shape.dim)


def op_name(node: onnx.NodeProto) -> str:
    """Return the type of a node, after its domain if it is not a standard op: "Conv", "com.example.Fused"."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether a node is a standard op without inner graphs (control flow)."""
    return node.domain in ("", "ai.onnx") and not any(_inner_graphs(node))


def op_counts(ops: Iterable[str]) -> str:
    """Return op names with their counts as text: "NonZero ×2, Loop ×1"."""
    return ", ".join(f"{op} ×{count}" for op, count in Counter(ops).items())


def values_read(node: onnx.NodeProto) -> list[str]:
    """Return the names of the values that a node reads: its inputs, and the values that its inner graphs capture."""
    captured = [name for graph in _inner_graphs(node) for name in _captured(graph)]
    return [name for name in node.input if name] + captured


def _inner_graphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _captured(graph: onnx.GraphProto) -> list[str]:
    own = {each.name for each in (*graph.input, *graph.initializer)}.union(*(node.output for node in graph.node))
    wanted = [name for node in graph.node for name in values_read(node)] + [each.name for each in graph.output]
    return [name for name in wanted if name not in own]


def submodel(model: onnx.ModelProto, outputs: Iterable[str]) -> onnx.ModelProto:
    """Return a model of the nodes that compute the named values.

    Args:
        model: the whole model; it stays unchanged.
        outputs: names of values of the model; the submodel returns them.
    """
    found = onnx.ModelProto()
    found.CopyFrom(model)
    before = {each.name: each for each in model.graph.output}
    del found.graph.output[:]
    found.graph.output.extend(before.get(name, onnx.ValueInfoProto(name=name)) for name in outputs)
    drop_unused(found.graph)
    inferred = {each.name: each for each in onnx.shape_inference.infer_shapes(found).graph.value_info}
    for each in found.graph.output:
        if not each.HasField("type") and each.name in inferred:
            each.CopyFrom(inferred[each.name])
    return found


def with_channels_first(model: onnx.ModelProto) -> onnx.ModelProto:
    """Turn an input of shape [N, H, W, C] into one of shape [N, C, H, W]; the model is changed and returned."""
    (image,) = graph_inputs(model)
    n, height, width, channels = image.type.tensor_type.shape.dim
    turned = onnx.ValueInfoProto()
    turned.CopyFrom(image)
    turned.name = f"{image.name}_channels_first"
    del turned.type.tensor_type.shape.dim[:]
    turned.type.tensor_type.shape.dim.extend([n, channels, height, width])
    turn = onnx.helper.make_node("Transpose", [turned.name], [image.name], perm=[0, 2, 3, 1])
    nodes, inputs = [turn, *model.graph.node], [turned, *(each for each in model.graph.input if each != image)]
    del model.graph.node[:], model.graph.input[:]
    model.graph.node.extend(nodes)
    model.graph.input.extend(inputs)
    return model


def drop_unused(graph: onnx.GraphProto) -> None:
    """Remove the nodes and weights that no output needs; the graph is changed."""
    wanted = {each.name for each in graph.output}
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(values_read(node))
    unused = {each.name for each in graph.initializer} - wanted
    _filter(graph.node, lambda node: bool(wanted.intersection(node.output)))
    _filter(graph.initializer, lambda each: each.name in wanted)
    _filter(graph.input, lambda each: each.name not in unused)


def _filter(found: Any, is_kept: Callable[[Any], bool]) -> None:
    """Delete entries of a protobuf list; the kept entries stay the same objects."""
    for index in reversed(range(len(found))):
        if not is_kept(found[index]):
            del found[index]

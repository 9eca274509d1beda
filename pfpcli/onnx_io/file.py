"""ONNX files: what one says about itself, and the part of it that comes to certain values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import onnx
from onnx import inliner

from pfpcli.errors import InputError
from pfpcli.images.folder import TAKEN_CHANNELS

#: The first opset in which numbers meet as they do in numpy.
OLDEST = 7
#: Types of images that go in as torch has them.
_TAKEN = ("float", "undefined")
#: Ops whose numbers are whole by design: such a file has been quantised.
_QUANTISED = re.compile(r"Q(uantize|Linear)|Dequantize|Integer$|^QGemm|^DynamicQuantize")


def read_model(path: Path) -> onnx.ModelProto:
    """The graph of a file, without functions of its own and what no output needs, and with its weights in it."""
    model = onnx.load(path)
    if model.functions:
        model = inliner.inline_local_functions(model)
    drop_unused(model.graph)
    return model


def refuse(model: onnx.ModelProto, name: str) -> None:
    """Refuse files that are not what pfp can cut.

    Args:
        model: what the file holds.
        name: of the file.

    Raises:
        InputError: it is too old, quantised, of several inputs, or of images that are no floats.
    """
    version = version_of(model)
    if version < OLDEST:
        raise InputError(
            f"{name}: is of opset {version}; pfp reads {OLDEST} and newer",
            f"convert it: `onnx.version_converter.convert_version(model, {OLDEST})`, or export it again",
        )
    if any(_QUANTISED.search(node.op_type) for node in model.graph.node):
        raise InputError(f"{name}: is quantised", "pass the network from before that, and quantise what comes out")
    if model.graph.sparse_initializer:
        raise InputError(f"{name}: holds sparse tensors", "export it with dense ones")
    inputs = shown(model)
    if len(inputs) != 1:
        named = ", ".join(each.name for each in inputs) or "none"
        raise InputError(f"{name}: has {len(inputs)} inputs ({named}); pfp reads networks of one")
    kind = onnx.TensorProto.DataType.Name(inputs[0].type.tensor_type.elem_type).lower()
    if kind not in _TAKEN:
        shorter = "pass the network in 32 bits, and convert what comes out"
        other = "leave the conversion in front of it out: `onnx.utils.extract_model`, or export it without that"
        hint = shorter if "float" in kind or kind == "double" else other
        raise InputError(f"{name}: reads images of type {kind}; pfp reads networks of 32-bit floats", hint)


def has_channels_last(model: onnx.ModelProto) -> bool:
    """Whether images go in with their channels behind heights and widths, as TensorFlow has them.

    Its sizes say so, and the first convolution does not read as many as there would be if they were first.
    """
    (image,) = shown(model)
    sizes = sizes_of(image) or ()
    if len(sizes) != 4 or sizes[3] not in TAKEN_CHANNELS or sizes[1] in TAKEN_CHANNELS:
        return False
    read = _channels_read(model.graph, image.name)
    # more of them where places were moved into channels on the way
    return read is not None and read != sizes[1] and read % sizes[3] == 0


def _channels_read(graph: onnx.GraphProto, image: str) -> int | None:
    """The channels that the first convolution behind a value reads, None where none does with weights of the file."""
    weights = {each.name: each.dims for each in graph.initializer}
    weights |= {each.output[0]: each.attribute[0].t.dims for each in graph.node if each.op_type == "Constant"}
    behind = {image}
    for node in graph.node:
        if not behind.intersection(node.input):
            continue
        if node.op_type in ("Conv", "ConvTranspose"):
            dims = weights.get(node.input[1])
            groups = next((each.i for each in node.attribute if each.name == "group"), 1)
            return None if dims is None else dims[1] * groups if node.op_type == "Conv" else dims[0]
        behind.update(node.output)
    return None


def version_of(model: onnx.ModelProto) -> int:
    """The opset that says what its nodes mean."""
    return next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 1)


def shown(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """Its inputs; old files list their weights among them."""
    held = {each.name for each in model.graph.initializer}
    return [each for each in model.graph.input if each.name not in held]


def sizes_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """The sizes of an input, None for a free one; None if nothing is said."""
    shape = value.type.tensor_type
    if not shape.HasField("shape"):
        return None
    return tuple(each.dim_value if each.dim_value > 0 else None for each in shape.shape.dim)


def op_of(node: onnx.NodeProto) -> str:
    """What kind of node it is, with the domain of whoever made it up."""
    return node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether the ONNX standard says what a node comes to, and it is no control flow."""
    return node.domain in ("", "ai.onnx") and not any(_inner(node))


def counted(ops: Iterable[str]) -> str:
    """Kinds of nodes as they are said: "NonZero ×2, Loop ×1"."""
    return ", ".join(f"{op} ×{count}" for op, count in Counter(ops).items())


def reads(node: onnx.NodeProto) -> list[str]:
    """The values that a node reads: its inputs, and what the graphs inside of it take from around them."""
    return [name for name in node.input if name] + [name for graph in _inner(node) for name in _taken(graph)]


def _inner(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _taken(graph: onnx.GraphProto) -> list[str]:
    own = {each.name for each in (*graph.input, *graph.initializer)}.union(*(node.output for node in graph.node))
    wanted = [name for node in graph.node for name in reads(node)] + [each.name for each in graph.output]
    return [name for name in wanted if name not in own]


def part(model: onnx.ModelProto, outputs: Iterable[str]) -> onnx.ModelProto:
    """A file of its own of what comes to these values.

    Args:
        model: the whole file; it stays as it is.
        outputs: names of values in it, outputs or not.
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
    """The same file with an input that has its channels first; the model is changed."""
    (image,) = shown(model)
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
    """Leave out what no output needs; the graph is changed."""
    wanted = {each.name for each in graph.output}
    for node in reversed(graph.node):
        if wanted.intersection(node.output):
            wanted.update(reads(node))
    gone = {each.name for each in graph.initializer} - wanted
    _keep(graph.node, lambda node: bool(wanted.intersection(node.output)))
    _keep(graph.initializer, lambda each: each.name in wanted)
    _keep(graph.input, lambda each: each.name not in gone)


def _keep(found: Any, is_kept: Callable[[Any], bool]) -> None:
    """Take what is not kept out of a list of the file; what is kept stays the same object."""
    for index in reversed(range(len(found))):
        if not is_kept(found[index]):
            del found[index]

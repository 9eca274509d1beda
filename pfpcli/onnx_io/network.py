"""ONNX in: a file becomes a network that torch can run and follow.

Initializers become parameters and buffers; nodes are computed in their order, each by its rule (`onnx_ops`).
"""

from __future__ import annotations

import inspect
import keyword
import re
from collections.abc import Hashable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from torch.fx import traceback
from torch.fx.node import Node

from pfpcli.errors import InputError
from pfpcli.graph.graph import Names, add_tensor, fetch
from pfpcli.onnx_io.file import (
    counted,
    has_channels_last,
    part,
    read_model,
    refuse,
    shown,
    sizes_of,
    version_of,
    with_channels_first,
)
from pfpcli.onnx_io.ops import KNOWN, RULES, Call, Known, UnknownValue
from pfpcli.onnx_io.untouched import rest_of

#: What the inputs of layers are, by their places.
_ROLES = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "InstanceNormalization", "LayerNormalization")
#: Ops whose inputs after the first say how: scales, limits, what to pad with.
_TOLD = ("Resize", "Upsample", "Pad", "Clip", "Range")
#: Ops that leave a tensor what it is, and a parameter a parameter.
_PASSING = ("Identity", "Dropout")
#: From channels last to first, and back.
_TURNED, _BACK = (0, 3, 1, 2), (0, 2, 3, 1)
#: What helps where something is not read.
_WITHOUT_IT = (
    "pass the checkpoint it was exported from, or a file that ends in front of what is not read "
    "(`onnx.utils.extract_model`)"
)
#: Whole numbers in a row, and others, that may be sizes, places or scales: they are known when the network is written
#: down.
_SMALL, _FEW = 4096, 8


@dataclass(frozen=True)
class _Node:
    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]
    #: its place in the file
    place: int
    #: the node alone, for numbers that are known
    alone: onnx.GraphProto


def read_onnx(path: Path) -> OnnxNetwork:
    """Read a file.

    Args:
        path: of an ONNX file; weights that it keeps in files beside it are read as well.

    Raises:
        InputError: it is broken, or there is something in it that pfp does not read.
    """
    try:
        model = read_model(path)
    except Exception as error:
        raise InputError(f"{path.name}: cannot be read ({_first_line(error)})", "copy or export it again") from error
    refuse(model, path.name)
    found = network(model)
    if found.rest.unknown and not any(each.dim() > 1 for each in found.parameters()):
        said = counted(found.rest.unknown)
        raise InputError(f"{path.name}: pfp does not read these ops of ONNX: {said}", _WITHOUT_IT)
    found.file = path
    return found


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class OnnxNetwork(nn.Module):
    """Computes what an ONNX graph computes.

    Args:
        model: with its weights in it.

    Attributes:
        names: of its input and its outputs: those of the file that are computed, and what the rest reads.
        rest: what of the file is not computed.
        paths: name of a constant -> the dotted name of its tensor here.
        has_channels_last: whether the file has the channels of its images last; here they are first.
        sizes: of its input, the channels first, None for free ones; None if the file does not say.
        file: that it was read from, if it was.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        graph = model.graph
        (image,) = shown(model)
        self.sizes = sizes_of(image)
        self.has_channels_last = has_channels_last(model)
        if self.sizes is not None and self.has_channels_last:
            self.sizes = tuple(self.sizes[i] for i in _TURNED)
        self.file: Path | None = None
        self._version = version_of(model)
        self._nodes: list[_Node] = []
        constants = {each.name: numpy_helper.to_array(each) for each in graph.initializer}
        given = [each.name for each in graph.output]
        # what an Identity calls a constant -> what that is called
        same: dict[str, str] = {}
        self.rest = rest_of(graph, RULES)
        left = {name for place in self.rest.places for name in graph.node[place].output}
        followed = [node for place, node in enumerate(graph.node) if place not in self.rest.places]
        wanted = {name for node in followed for name in node.input}.union(given)
        for place, node in enumerate(graph.node):
            inputs = tuple(same.get(name, name) for name in node.input)
            if place in self.rest.places:
                continue
            if node.op_type == "Constant":
                if node.output[0] in wanted:
                    constants[node.output[0]] = _constant(node)
            elif node.op_type == "Identity" and inputs[0] in constants and node.output[0] not in given:
                same[node.output[0]] = inputs[0]
            elif inputs and all(name in constants for name in inputs if name):
                feeds = {old: constants[new] for old, new in zip(node.input, inputs, strict=True) if new}
                made = ReferenceEvaluator(_alone(node), opsets={"": self._version}).run(None, feeds)
                constants.update(zip(node.output, map(np.asarray, made), strict=True))
            else:
                attributes = {each.name: _attribute(each) for each in node.attribute}
                name = node.name or f"{node.op_type}_{node.output[0]}"
                self._nodes.append(
                    _Node(node.op_type, name, inputs, tuple(node.output), attributes, place, _alone(node))
                )
        ends = [name for name in given if name not in left]
        self.names = Names((image.name,), tuple(dict.fromkeys([*ends, *self.rest.ends])))
        named = set(constants)
        self._nodes = _apart(self._nodes, constants)
        self._known: dict[str, NDArray[Any]] = {}
        self.paths: dict[str, str] = {}
        untrained = {
            name
            for each in self._nodes
            for name in each.inputs[3 if each.op == "BatchNormalization" else 1 :]
            if each.op in ("BatchNormalization", *_TOLD)
        }
        self._kept = self.rest.reads.union(self.names.outputs)
        #: value -> the last node that reads it
        self._last = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        paths = _Paths(self._nodes, named, {*dir(self)})
        for name, array in constants.items():
            if name not in self._last and name not in self.names.outputs:
                continue
            tensor = _tensor(array)
            trained = tensor.is_floating_point() and tensor.dim() > 0 and name not in untrained
            self.paths[name] = paths.of(name)
            add_tensor(self, self.paths[name], nn.Parameter(tensor) if trained else tensor)
            if array.ndim <= 1 and array.size <= (_FEW if tensor.is_floating_point() else _SMALL):
                self._known[name] = array

    def as_read(self, file: Path) -> Path | onnx.ModelProto:
        """A file as it is computed here: that part of it, and with the channels of its images first."""
        if not self.rest.places and not self.has_channels_last:
            return file
        model = part(read_model(file), self.names.outputs)
        return with_channels_first(model) if self.has_channels_last else model

    def whole(self, file: Path) -> Path | onnx.ModelProto:
        """All of a file, with the channels of its images first."""
        return with_channels_first(read_model(file)) if self.has_channels_last else file

    def reads(self, place: int) -> tuple[str, ...]:
        """What a node of the file reads, by the names that `paths` has; none of one that is not computed."""
        return next((node.inputs for node in self._nodes if node.place == place), ())

    def compute(self, x: Tensor) -> Any:
        """The output, or a dict of them by their names.

        Raises:
            ValueError: the input is not of the sizes that the file says.
        """
        return self._computed(x, {})

    def sizes_read(self, x: Tensor) -> dict[str, NDArray[Any]]:
        """What is computed from sizes and read together with tensors, or by the rest, by the names of the file."""
        told: dict[str, Known] = {}
        with torch.no_grad():
            self._computed(x, told)
        return {name: value.numbers() for name, value in told.items() if name not in self.paths}

    def _computed(self, x: Tensor, told: dict[str, Known]) -> Any:
        self._check(x)
        values: dict[str, Any] = {self.names.inputs[0]: x.permute(_BACK) if self.has_channels_last else x}
        for name, path in self.paths.items():
            tensor = fetch(self, path)
            values[name] = replace(Known.of_array(self._known[name]), tensor=tensor) if name in self._known else tensor
        for i, node in enumerate(self._nodes):
            given = [values[name] if name else None for name in node.inputs]
            with traceback.preserve_node_meta(), traceback.annotate({_NODE: node.place}):
                made = self._made(node, given)
            values.update(zip(node.outputs, made, strict=False))
            if any(isinstance(each, Tensor) for each in made):
                read = zip(node.inputs, given, strict=True)
                told.update({name: x for name, x in read if isinstance(x, Known)})
            for name in node.inputs:
                if self._last[name] == i and name not in self._kept:
                    values.pop(name, None)
        told.update({name: values[name] for name in self.rest.reads if isinstance(values.get(name), Known)})
        found = [values[name] for name in self.names.outputs]
        found = [each.as_tensor() if isinstance(each, Known) else each for each in found]
        return found[0] if len(found) == 1 else dict(zip(self.names.outputs, found, strict=True))

    def _made(self, node: _Node, given: list[Any]) -> tuple[Any, ...]:
        """What a node comes to, as far as anything reads it.

        Raises:
            InputError: it is of a kind that its rule does not compute.
        """
        try:
            return self._ruled(node, given)
        except (NotImplementedError, UnknownValue) as error:
            of = self.file.name if self.file else "the graph"
            raise InputError(f"{of}: pfp does not read {node.op} {node.name}: {error}", _WITHOUT_IT) from error

    def _ruled(self, node: _Node, given: list[Any]) -> tuple[Any, ...]:
        there = [each for each in given if each is not None]
        call = Call(node.op, node.name, self._version, node.attributes, given, len(node.outputs))
        if node.op in _PASSING or not there or not all(isinstance(each, Known) for each in there):
            found = RULES[node.op](call)
        elif all(each.is_concrete for each in there):
            return self._numbers(node, given)
        else:
            found = KNOWN.get(node.op, RULES[node.op])(call)
        made = found if isinstance(found, tuple) else (found,)
        if any(name in self._last or name in self._kept for name in node.outputs[len(made) :]):
            raise NotImplementedError(f"{len(made)} of its {len(node.outputs)} outputs have a rule")
        return made

    def _numbers(self, node: _Node, given: list[Any]) -> tuple[Known, ...]:
        """The same where all numbers are known, by the standard's own definition of the op."""
        names = node.alone.node[0].input
        feeds = {name: x.numbers() for name, x in zip(names, given, strict=True) if x is not None}
        evaluator = ReferenceEvaluator(node.alone, opsets={"": self._version})
        return tuple(Known.of_array(np.asarray(each)) for each in evaluator.run(None, feeds))

    def _check(self, x: Tensor) -> None:
        sizes = self.sizes
        if sizes is None:
            return
        if len(sizes) != x.dim() or any(a not in (None, b) for a, b in zip(sizes, x.shape, strict=True)):
            said = "×".join("?" if size is None else str(size) for size in sizes)
            raise ValueError(f"input {self.names.inputs[0]} is {said}, not {'×'.join(map(str, x.shape))}")


def _apart(nodes: list[_Node], constants: dict[str, NDArray[Any]]) -> list[_Node]:
    """The nodes with vectors of their own, unless they are layers with the same weights, or follow such.

    Exporters write equal numbers once: biases of 0, say. Layers that have no more in common than that would be tied to
    each other by it.

    Args:
        nodes: of a graph.
        constants: by name; gets the copies.
    """
    # value -> what it has to have in common with another for the vectors behind both to be one
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
        for place, name in enumerate(inputs):
            if name in held and _is_vector(constants[name]):
                sharing = owners.setdefault(name, [])
                if (origin, place) not in sharing:
                    sharing.append((origin, place))
                if index := sharing.index((origin, place)):
                    inputs[place] = f"{name}.{index}"
                    constants[inputs[place]] = constants[name]
        found.append(replace(node, inputs=tuple(inputs)))
    return found


def _is_vector(array: NDArray[Any]) -> bool:
    return array.dtype.kind == "f" and array.size > 1 and max(array.shape) == array.size


def network(model: onnx.ModelProto) -> OnnxNetwork:
    """The network of a graph; its forward has an argument of the name of the graph's input."""

    def forward(self: OnnxNetwork, x: Tensor) -> Any:
        return self.compute(x)

    names = [_identifier(each.name) for each in shown(model)]
    kind = inspect.Parameter.POSITIONAL_ONLY
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ["self", *names]])  # type: ignore[attr-defined]
    made: OnnxNetwork = type("OnnxNetwork", (OnnxNetwork,), {"forward": forward})(model)
    return made.eval()


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name)
    return f"_{found}" if not found or found[0].isdigit() or keyword.iskeyword(found) else found


class _Paths:
    """Dotted names for what a graph holds: its own where it has one, else that of the node that reads it first.

    Args:
        nodes: of the graph.
        named: the constants that have names.
        reserved: what a module calls something else.
    """

    def __init__(self, nodes: list[_Node], named: set[str], reserved: set[str]) -> None:
        self._reserved = reserved
        self._named = {name for name in named if "." in name}
        self._readers: dict[str, tuple[_Node, int]] = {}
        for node in nodes:
            for place, name in enumerate(node.inputs):
                self._readers.setdefault(name, (node, place))
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        """A name that no other tensor, and no part of the name of one, has."""
        path = name
        if name not in self._named and name in self._readers:
            node, place = self._readers[name]
            role = _ROLES.get(place) if node.op in _LAYERS else None
            path = f"{node.name}.{role or f'input{place}'}"
        parts = [part for part in re.sub(r"[/:]+", ".", path).split(".") if part] or ["value"]
        parts = [f"{part}_" if part in self._reserved else part for part in parts]
        while self._is_below(parts):
            parts[0] += "_"
        while self._is_taken(parts):
            parts[-1] += "_"
        self._taken.update(".".join(parts[:i]) + "." for i in range(1, len(parts)))
        self._taken.add(".".join(parts))
        return ".".join(parts)

    def _is_below(self, parts: list[str]) -> bool:
        """Whether a tensor stands where one of its modules would."""
        return any(".".join(parts[:i]) in self._taken for i in range(1, len(parts)))

    def _is_taken(self, parts: list[str]) -> bool:
        """Whether something stands there: a tensor, or a module."""
        path = ".".join(parts)
        return path in self._taken or f"{path}." in self._taken


def _alone(node: onnx.NodeProto) -> onnx.GraphProto:
    """The graph of one node; nothing is said about what goes in and out of it."""
    inputs, outputs = (
        [onnx.ValueInfoProto(name=name) for name in names if name] for names in (node.input, node.output)
    )
    return onnx.helper.make_graph([node], "node", inputs, outputs)


#: Where a call of a traced network keeps the place of the node of the file that it was read from.
_NODE = "onnx_node"


def node_of(call: Node) -> int | None:
    """The place in its file of the node that a call was read from."""
    found: int | None = call.meta.get("custom", {}).get(_NODE)
    return found


def _tensor(array: NDArray[Any]) -> Tensor:
    if array.dtype.name == "bfloat16":  # numpy has no such numbers of its own
        return torch.from_numpy(array.astype(np.float32)).bfloat16()
    return torch.from_numpy(np.array(array))


def _attribute(found: onnx.AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(found)
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, onnx.TensorProto):
        return _tensor(numpy_helper.to_array(value))
    if isinstance(value, (int, float, str, onnx.GraphProto)):
        return value
    return [each.decode() if isinstance(each, bytes) else each for each in value]


def _constant(node: onnx.NodeProto) -> NDArray[Any]:
    (attribute,) = node.attribute
    name, value = attribute.name, onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return numpy_helper.to_array(value)
    return np.asarray(value, np.float32 if "float" in name else np.int64)

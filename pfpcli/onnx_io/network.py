"""Reading: an ONNX file becomes a network that torch runs and traces.

Constants of the file become parameters and buffers. The network computes the nodes of the file in their order, each
with the rule of its op (`ops`).
"""

from __future__ import annotations

import inspect
import keyword
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx import traceback
from torch.fx.node import Node

from pfpcli.errors import InputError
from pfpcli.graph.graph import Names, add_tensor, fetch
from pfpcli.onnx_io.file import (
    check_supported,
    graph_inputs,
    has_channels_last,
    op_counts,
    opset_of,
    read_model,
    sizes_of,
    submodel,
    with_channels_first,
)
from pfpcli.onnx_io.nodes import FileNode, as_tensor, computed_nodes, evaluate, with_own_vectors
from pfpcli.onnx_io.ops import KNOWN, RULES, Call, Known, NotRead
from pfpcli.onnx_io.tensor_names import TensorNames
from pfpcli.onnx_io.untouched import Untouched, find_untouched

#: Ops whose inputs after the first are settings, not weights: scales, limits, the number to pad with.
_WITH_SETTINGS = ("Resize", "Upsample", "Pad", "Clip", "Range")
#: Ops that return their input unchanged, so that a parameter stays a parameter.
_PASSING = ("Identity", "Dropout")
#: Permutations from [N, H, W, C] to [N, C, H, W], and back.
_TO_CHANNELS_FIRST, _TO_CHANNELS_LAST = (0, 3, 1, 2), (0, 2, 3, 1)
_HINT = (
    "pass the checkpoint that the file was exported from, or a file that ends before the node that pfp does not read "
    "(`onnx.utils.extract_model`)"
)
#: The most numbers of a constant vector that may be sizes, indices or scales: whole numbers, floats. The values of such
#: constants are known while the network is traced.
_MOST_WHOLE, _MOST_FLOATS = 4096, 8


def read_onnx(path: Path) -> OnnxNetwork:
    """Read an ONNX file.

    Args:
        path: the file; weights in external files beside it are read, too.

    Raises:
        InputError: the file is broken, or pfp does not read its kind of network or its ops.
    """
    try:
        model = read_model(path)
    except Exception as error:
        raise InputError(f"{path.name}: cannot be read ({_first_line(error)})", "copy or export it again") from error
    check_supported(model, path.name)
    network = network_of(model)
    if network.untouched.unknown and not any(each.dim() > 1 for each in network.parameters()):
        counts = op_counts(network.untouched.unknown)
        raise InputError(f"{path.name}: pfp does not read these ops of ONNX: {counts}", _HINT)
    network.file = path
    return network


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def network_of(model: onnx.ModelProto) -> OnnxNetwork:
    """Make a network of a model, in eval mode.

    The argument of its forward has the name of the model's input.
    """

    def forward(self: OnnxNetwork, x: Tensor) -> Any:
        return self.compute(x)

    names = [_identifier(each.name) for each in graph_inputs(model)]
    kind = inspect.Parameter.POSITIONAL_ONLY
    forward.__signature__ = inspect.Signature([inspect.Parameter(name, kind) for name in ["self", *names]])  # type: ignore[attr-defined]
    made: OnnxNetwork = type("OnnxNetwork", (OnnxNetwork,), {"forward": forward})(model)
    return made.eval()


def _identifier(name: str) -> str:
    found = re.sub(r"\W", "_", name)
    return f"_{found}" if not found or found[0].isdigit() or keyword.iskeyword(found) else found


class OnnxNetwork(nn.Module):
    """A network that computes an ONNX graph up to its untouched nodes.

    Args:
        model: the model with its weights.

    Attributes:
        names: names of its input and outputs. The outputs are those outputs of the file that are computed, and the
            boundary of the untouched nodes.
        untouched: the nodes that are not computed.
        paths: name of a constant in the file -> dotted name of its tensor here.
        has_channels_last: whether the input in the file has shape [N, H, W, C]; the input here is [N, C, H, W].
        sizes: (N, C, H, W) of the input, None for a free size; None if the file has no shape.
        file: the file that it was read from, None if it was made of a model in memory.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        super().__init__()
        (image,) = graph_inputs(model)
        self.sizes = sizes_of(image)
        self.has_channels_last = has_channels_last(model)
        if self.sizes is not None and self.has_channels_last:
            self.sizes = tuple(self.sizes[i] for i in _TO_CHANNELS_FIRST)
        self.file: Path | None = None
        self.untouched = find_untouched(model.graph, RULES)
        self.names = Names((image.name,), _outputs(model.graph, self.untouched))
        listed = [each.name for each in model.graph.output]
        #: a file may list an output twice, and this network computes it once
        self._is_whole = not self.untouched.nodes and len(set(listed)) == len(listed)
        self._version = opset_of(model)
        nodes, constants = computed_nodes(model.graph, self.untouched.nodes, self._version)
        self._nodes, arrays = with_own_vectors(nodes, constants)
        #: values that are needed after the last node
        self._retained = self.untouched.reads.union(self.names.outputs)
        #: value -> the last node that reads it
        self._last = {name: i for i, node in enumerate(self._nodes) for name in node.inputs}
        self._known: dict[str, NDArray[Any]] = {}
        self.paths: dict[str, str] = {}
        self._add_tensors(arrays, TensorNames(self._nodes, constants, dir(self)))

    def _add_tensors(self, arrays: dict[str, NDArray[Any]], names: TensorNames) -> None:
        """Register every constant that is read as a parameter or buffer, and remember the small ones as arrays."""
        no_parameters = {
            name
            for node in self._nodes
            for name in node.inputs[3 if node.op == "BatchNormalization" else 1 :]
            if node.op in ("BatchNormalization", *_WITH_SETTINGS)
        }
        for name, array in arrays.items():
            if name not in self._last and name not in self.names.outputs:
                continue
            tensor = as_tensor(array)
            is_parameter = tensor.is_floating_point() and tensor.dim() > 0 and name not in no_parameters
            self.paths[name] = names.of(name)
            add_tensor(self, self.paths[name], nn.Parameter(tensor) if is_parameter else tensor)
            if array.ndim <= 1 and array.size <= (_MOST_FLOATS if tensor.is_floating_point() else _MOST_WHOLE):
                self._known[name] = array

    def as_read(self, file: Path) -> Path | onnx.ModelProto:
        """Return the part of a file that this network computes, with an input of shape [N, C, H, W].

        Args:
            file: the file of this network, or of a network that was cut from it.
        """
        if self._is_whole and not self.has_channels_last:
            return file
        model = submodel(read_model(file), self.names.outputs)
        return with_channels_first(model) if self.has_channels_last else model

    def whole(self, file: Path) -> Path | onnx.ModelProto:
        """Return a file with its untouched nodes, with an input of shape [N, C, H, W]."""
        return with_channels_first(read_model(file)) if self.has_channels_last else file

    def inputs_of(self, index: int) -> tuple[str, ...]:
        """Return the names in `paths` of the inputs of a node of the file; none if the node is not computed."""
        return next((node.inputs for node in self._nodes if node.index == index), ())

    def compute(self, x: Tensor) -> Any:
        """Compute the network.

        Args:
            x: float[N, C, H, W].

        Returns:
            The output, or name -> output if there are several.

        Raises:
            ValueError: the sizes of the input are not those of the file.
        """
        return self._computed(x)[0]

    def known_values(self, x: Tensor) -> dict[str, NDArray[Any]]:
        """Compute the values that depend on sizes alone.

        Args:
            x: float[N, C, H, W].

        Returns:
            Name in the file -> array, for the values that are read together with tensors or by untouched nodes.
        """
        with torch.no_grad():
            _, known = self._computed(x)
        return {name: value.numbers() for name, value in known.items() if name not in self.paths}

    def _computed(self, x: Tensor) -> tuple[Any, dict[str, Known]]:
        """Compute the outputs, and the known values that are read together with tensors or by untouched nodes."""
        self._check(x)
        known: dict[str, Known] = {}
        image = x.permute(_TO_CHANNELS_LAST) if self.has_channels_last else x
        values: dict[str, Any] = {self.names.inputs[0]: image}
        for name, path in self.paths.items():
            tensor = fetch(self, path)
            values[name] = replace(Known.of_array(self._known[name]), tensor=tensor) if name in self._known else tensor
        for i, node in enumerate(self._nodes):
            given = [values[name] if name else None for name in node.inputs]
            with traceback.preserve_node_meta(), traceback.annotate({_INDEX: node.index}):
                made = self._made(node, given)
            values.update(zip(node.outputs, made, strict=False))
            if any(isinstance(each, Tensor) for each in made):
                read = zip(node.inputs, given, strict=True)
                known.update({name: value for name, value in read if isinstance(value, Known)})
            for name in node.inputs:
                if self._last[name] == i and name not in self._retained:
                    values.pop(name, None)
        reads = {name: values.get(name) for name in self.untouched.reads}
        known.update({name: value for name, value in reads.items() if isinstance(value, Known)})
        found = [values[name] for name in self.names.outputs]
        found = [each.as_tensor() if isinstance(each, Known) else each for each in found]
        return found[0] if len(found) == 1 else dict(zip(self.names.outputs, found, strict=True)), known

    def _made(self, node: FileNode, given: list[Any]) -> tuple[Any, ...]:
        """Compute a node.

        Raises:
            InputError: the rule of its op does not compute this variant.
        """
        try:
            return self._by_rule(node, given)
        except NotRead as error:
            raise self._refused(node, str(error)) from error
        except InputError:
            raise
        except Exception as error:
            raise self._refused(node, _first_line(error)) from error

    def _refused(self, node: FileNode, why: str) -> InputError:
        of = self.file.name if self.file else "the graph"
        return InputError(f"{of}: pfp does not read {node.op} {node.name}: {why}", _HINT)

    def _by_rule(self, node: FileNode, given: list[Any]) -> tuple[Any, ...]:
        there = [each for each in given if each is not None]
        call = Call(node.op, node.name, self._version, node.attributes, given, len(node.outputs))
        if node.op in _PASSING or not there or not all(isinstance(each, Known) for each in there):
            found = RULES[node.op](call)
        elif all(each.is_concrete for each in there):
            arrays = [None if each is None else each.numbers() for each in given]
            return tuple(Known.of_array(each) for each in evaluate(node.graph, arrays, self._version))
        else:
            found = KNOWN.get(node.op, RULES[node.op])(call)
        made = found if isinstance(found, tuple) else (found,)
        if any(name in self._last or name in self._retained for name in node.outputs[len(made) :]):
            raise NotRead(f"{len(made)} of its {len(node.outputs)} outputs have a rule")
        return made

    def _check(self, x: Tensor) -> None:
        sizes = self.sizes
        if sizes is None:
            return
        if len(sizes) != x.dim() or any(a not in (None, b) for a, b in zip(sizes, x.shape, strict=True)):
            said = "×".join("?" if size is None else str(size) for size in sizes)
            raise ValueError(f"input {self.names.inputs[0]} is {said}, not {'×'.join(map(str, x.shape))}")


def _outputs(graph: onnx.GraphProto, untouched: Untouched) -> tuple[str, ...]:
    """Return the outputs of the graph that are computed, then the boundary of the untouched nodes, each once."""
    not_computed = {name for index in untouched.nodes for name in graph.node[index].output}
    computed = [each.name for each in graph.output if each.name not in not_computed]
    return tuple(dict.fromkeys([*computed, *untouched.boundary]))


#: Key in the metadata of a traced call under which it keeps the index of the file's node that it was read from.
_INDEX = "onnx_node"


def node_index(call: Node) -> int | None:
    """Return the index of the file's node that a traced call was read from, None for a call without one."""
    found: int | None = call.meta.get("custom", {}).get(_INDEX)
    return found

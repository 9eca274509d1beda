"""Narrow: the ONNX graph that came in, with the weights and the sizes of the network that was cut from it.

Its nodes, their order and names, its opset, inputs and outputs stay. Each call of a traced network knows the node it
was read from; where a cut has changed the numbers among its arguments, those of the node follow (`onnx_ops`: one
function for each op that has such numbers). What is computed from sizes in the file either comes out right by itself,
or is replaced by what it was.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from onnxruntime import InferenceSession
from torch import Tensor
from torch.fx.node import Node, map_arg

from pfpcli.graph.graph import Graph, fetch
from pfpcli.graph.trace import larger
from pfpcli.onnx_io.file import drop_unused, read_model
from pfpcli.onnx_io.network import OnnxNetwork, node_of
from pfpcli.onnx_io.network import network as read_again
from pfpcli.onnx_io.ops import NARROWED, Edit
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE, onnx_vs_torch, run_onnx, session


class CannotNarrow(Exception):
    """A file that the cut cannot be written into: it says the same in a way that is not followed back."""


def save(network: OnnxNetwork, whole: Graph, smaller: Graph, path: Path, samples: Sequence[Tensor]) -> float:
    """Write the file of a cut network and run it against torch.

    Args:
        network: what was read from the original's file.
        whole: the graph that was traced.
        smaller: what was cut from it.
        path: the file.
        samples: as for `export.save_onnx`.

    Returns:
        the largest difference, relative to the largest output.

    Raises:
        CannotNarrow: something that changed has no place in the file; none is left.
    """
    assert network.file is not None
    try:
        onnx.save(narrow(read_model(network.file), network, whole, smaller), path)
        written = network.as_read(path)
        difference = onnx_vs_torch(written, smaller, samples)
        if whole.spatial and any(size is None for size in (network.sizes or ())[2:]):
            difference = max(difference, onnx_vs_torch(written, smaller, larger(samples)))
        if difference > ONNX_TOLERANCE:
            raise CannotNarrow(f"its outputs would differ by {difference:.1e}")
        if is_sound(network.file) and not is_sound(path):
            raise CannotNarrow("it would not be sound any more")
        if runs(network, network.file, samples) and not runs(network, path, samples):
            raise CannotNarrow("what comes after it would not run any more")
    except Exception as error:
        path.unlink(missing_ok=True)
        if isinstance(error, CannotNarrow):
            raise
        raise CannotNarrow(str(error).strip().partition("\n")[0]) from error
    return difference


def is_sound(file: Path) -> bool:
    """Whether a file is all that the standard asks for; onnxruntime takes others as well."""
    try:
        onnx.checker.check_model(file)
    except Exception:
        return False
    return True


def runs(network: OnnxNetwork, file: Path, samples: Sequence[Tensor]) -> bool:
    """Whether onnxruntime runs all of a file; what pfp does not read may be for other programs."""
    try:
        whole = session(network.whole(file))
    except Exception:
        return False
    # picking is often for one image
    return any(_does_run(whole, inputs) for inputs in (samples, [x[:1] for x in samples]))


def _does_run(session: InferenceSession, inputs: Sequence[Tensor]) -> bool:
    try:
        run_onnx(session, inputs)
    except Exception:
        return False
    return True


def lost(network: OnnxNetwork, why: str) -> str:
    """What torch's export of a network does not have of its file, for a warning."""
    parts = ["takes images with the channels first"] if network.has_channels_last else []
    parts += ["ends in front of what was not followed"] if network.rest.places else []
    return f", which {' and '.join(parts)} ({why})" if parts else f" ({why})"


def copy(file: Path, path: Path) -> None:
    """A file as it came in, with what it keeps beside it in it."""
    onnx.save(read_model(file), path)


def narrow(model: onnx.ModelProto, network: OnnxNetwork, whole: Graph, smaller: Graph) -> onnx.ModelProto:
    """The file of a cut network.

    Args:
        model: the file that was read, with its weights in it; it is changed.
        network: what was read from it.
        whole: the graph that was traced.
        smaller: what was cut from it.

    Raises:
        CannotNarrow: something that changed has no place in the file.
    """
    graph = model.graph
    before, after = _calls(whole), _calls(smaller)
    written = _Writer(graph, model.ir_version, network, smaller)
    for place, node in written.nodes.items():
        written.set_weights(place, node)
        old, new = before.get(place, []), after.get(place, [])
        if len(old) != len(new):
            raise CannotNarrow(f"{node.op_type} {node.name}")
        written.set_numbers(place, node, zip(old, new, strict=True), whole)
        if any(_said(a) != _said(b) for a, b in zip(old, new, strict=True)) or node.op_type in _ALWAYS:
            written.follow(node, new)
    del graph.value_info[:]
    drop_unused(graph)
    written.keep_sizes(model, smaller.example[0])
    drop_unused(graph)
    return model


#: The first version of the format in which constants need not be listed among the inputs.
_UNLISTED = 4
#: Ops with sizes that are not among the arguments of the calls they are read as.
_ALWAYS = ("Resize",)


def _calls(graph: Graph) -> dict[int, list[Node]]:
    """Node of the file -> the calls it was read as, in order."""
    found: dict[int, list[Node]] = {}
    for node in graph.nodes:
        place = node_of(node)
        if node.op == "call_function" and place is not None:
            found.setdefault(place, []).append(node)
    return found


def _said(node: Any) -> tuple[str, Any]:
    """A call without what it computes with: its target, its numbers, and the names of its tensors."""

    def name(n: Node) -> Any:
        return f"tensor {n.target}" if n.op == "get_attr" else "value"

    return str(node.target), map_arg((node.args, node.kwargs), name)


def _held(call: Node) -> list[Node]:
    return [node for node in call.all_input_nodes if node.op == "get_attr"]


class _Writer:
    """The file while it is written."""

    def __init__(self, graph: onnx.GraphProto, version: int, network: OnnxNetwork, smaller: Graph) -> None:
        self.graph = graph
        self.nodes = {place: node for place, node in enumerate(graph.node)}
        self._network = network
        self._smaller = smaller
        self._holders = {each.name: each for each in graph.initializer}
        self._values = {node.output[0]: node.attribute[0] for node in graph.node if node.op_type == "Constant"}
        #: constants that may become others in place
        self._own = {*self._holders, *self._values} - network.rest.reads
        self._fresh = 0
        self._lists_weights = version < _UNLISTED
        #: what is computed from sizes
        self._sizes = network.sizes_read(smaller.example[0])

    def set_weights(self, place: int, node: onnx.NodeProto) -> None:
        """Give a node the tensors that it has in the cut network."""
        for index, name in enumerate(self._network.reads(place)):
            tensor = self._tensor(name)
            if name in self._own:
                if self._has_changed(name):
                    self._set(name, tensor.detach().cpu().numpy())
            # one of several that were written once, what is computed from weights, or what the rest reads too
            elif tensor is not None and (self._has_changed(name) or self._has_changed(name.rpartition(".")[0])):
                node.input[index] = self.add(tensor.detach().cpu().numpy(), name)

    def set_numbers(self, place: int, node: onnx.NodeProto, calls: Iterable[tuple[Node, Node]], whole: Graph) -> None:
        """Give a node what is left of numbers that the file computes from sizes, where that was cut with a tensor.

        Args:
            place: of the node.
            node: of the file; it is changed.
            calls: that it was read as, before and after the cut.
            whole: the graph before it.
        """
        # a call that became another one has other constants; its numbers follow
        held = [(a, b) for x, y in calls if x.target == y.target for a, b in zip(_held(x), _held(y), strict=True)]
        for a, b in held:
            was, now = whole.tensor(a), self._smaller.tensor(b)
            if str(a.target) in self._network.paths.values() or was.shape == now.shape:
                continue
            numbers = was.detach().cpu().numpy()
            for index, name in enumerate(self._network.reads(place)):
                found = self._sizes.get(name)
                if found is not None and np.array_equal(found.reshape(-1), numbers.reshape(-1)):
                    node.input[index] = self.add(now.detach().cpu().numpy(), f"{name}_kept")

    def _has_changed(self, name: str) -> bool:
        """Whether a constant is another one in the cut network."""
        tensor = self._tensor(name)
        if tensor is None:
            return False
        was = fetch(self._network, self._network.paths[name])
        return tensor.shape != was.shape or not torch.equal(tensor, was)

    def _tensor(self, name: str) -> Any:
        """A constant as it is in the cut network, None if it has no tensor there: numbers that say how."""
        try:
            return fetch(self._smaller.module, self._network.paths[name])
        except (KeyError, AttributeError):
            return None

    def _set(self, name: str, array: NDArray[Any]) -> None:
        if name in self._holders:
            self._holders[name].CopyFrom(numpy_helper.from_array(array, name))
            for shown in self.graph.input:  # old files list their weights there
                if shown.name == name:
                    shown.CopyFrom(onnx.helper.make_tensor_value_info(name, self._holders[name].data_type, array.shape))
        else:
            self._values[name].CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(array)))

    def follow(self, node: onnx.NodeProto, calls: list[Node]) -> None:
        """Change what a node says to what its calls say now."""
        edit = Edit(node, calls, self)
        if str(calls[-1].target) == "aten.index_select.default":
            self._pick(edit)
            return
        if node.op_type not in NARROWED:
            raise CannotNarrow(f"{node.op_type} {node.name}")
        try:
            NARROWED[node.op_type](edit)
        except (KeyError, IndexError, StopIteration, ValueError) as error:
            raise CannotNarrow(f"{node.op_type} {node.name}: {error}") from error

    def _pick(self, edit: Edit) -> None:
        """Make a node pick positions along a dimension."""
        x, dim, index = edit.after[-1].args
        positions = self._smaller.tensor(index).detach().cpu().numpy()
        node = edit.node
        inputs = [self.value(x), self.add(positions, f"{node.name}_positions")]
        node.CopyFrom(onnx.helper.make_node("Gather", inputs, [*node.output], name=node.name, axis=dim))

    def keep_sizes(self, model: onnx.ModelProto, x: Tensor) -> None:
        """Make constants of what is computed from sizes that have changed, where the cut network has it as it was."""
        was = self._sizes
        now = read_again(model).sizes_read(x)
        for name in now:
            if name in was and not np.array_equal(was[name], now[name]):
                if name in self._network.rest.reads:
                    raise CannotNarrow(f"what comes after it reads {name}")
                for node in self.nodes.values():
                    for index in (i for i, read in enumerate(node.input) if read == name):
                        node.input[index] = self.add(was[name], f"{name}_was")

    def value(self, node: Node) -> str:
        """What the file calls what a call comes to."""
        if node.op == "placeholder":
            return self._network.names.inputs[0]
        place = node_of(node)
        if place is None:
            raise CannotNarrow(node.name)
        which: Any = node.args[1] if "getitem" in str(node.target) else 0
        return str(self.nodes[place].output[which])

    def add(self, array: NDArray[Any], name: str) -> str:
        """A new constant; returns its name."""
        taken = {each.name for each in self.graph.initializer} | {x for n in self.graph.node for x in n.output}
        while name in taken:
            self._fresh += 1
            name = f"{name}_{self._fresh}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if self._lists_weights:
            self.graph.input.append(
                onnx.helper.make_tensor_value_info(name, self.graph.initializer[-1].data_type, array.shape)
            )
        return name

    def constant(self, name: str) -> NDArray[Any] | None:
        """A constant of the file, None if it is computed."""
        path = self._network.paths.get(name)
        return None if path is None else fetch(self._network, path).detach().numpy()

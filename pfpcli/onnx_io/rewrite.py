"""Rewriting: the nodes of an ONNX graph get the weights and the sizes of the network that was cut from it.

The nodes, their order and names, the opset, the inputs and the outputs stay. Every call of a traced network knows the
node of the file that it was read from. A node whose calls have other numbers among their arguments after the cut is
rewritten by the rewriter of its op (`ops`). A value that the file computes from sizes either follows the new sizes by
itself, or becomes a constant.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor
from torch.fx.node import Node, map_arg

from pfpcli.graph.graph import Graph, fetch
from pfpcli.onnx_io.file import drop_unused, op_name
from pfpcli.onnx_io.network import OnnxNetwork, network_of, node_index
from pfpcli.onnx_io.ops import REWRITERS, NodeEdit

#: The first version of the format in which the inputs of a graph need not list its weights.
_UNLISTED = 4
#: Ops with sizes that are no arguments of the calls that they are read as.
_ALWAYS = ("Resize",)


class CannotRewrite(Exception):
    """The cut cannot be written into the file. The message names the node or the reason."""


def rewrite(model: onnx.ModelProto, network: OnnxNetwork, whole: Graph, smaller: Graph) -> onnx.ModelProto:
    """Write a cut network into the model that its original was read from.

    Args:
        model: the model of the file with its weights; it is changed and returned.
        network: the network that was read from the file.
        whole: its traced graph.
        smaller: the graph of the cut network.

    Raises:
        CannotRewrite: a node has changed that no rewriter can change in the file.
    """
    graph = model.graph
    before, after = _calls(whole), _calls(smaller)
    file = _File(graph, model.ir_version, network, smaller)
    for index, node in file.nodes.items():
        file.set_weights(index, node)
        old, new = before.get(index, []), after.get(index, [])
        if len(old) != len(new):
            raise CannotRewrite(f"{node.op_type} {node.name}")
        file.set_cut_values(index, node, zip(old, new, strict=True), whole)
        if any(_arguments(a) != _arguments(b) for a, b in zip(old, new, strict=True)) or node.op_type in _ALWAYS:
            file.rewrite_node(node, new)
    del graph.value_info[:]
    drop_unused(graph)
    file.freeze_changed_sizes(model, smaller.example[0], after)
    drop_unused(graph)
    return model


def _calls(graph: Graph) -> dict[int, list[Node]]:
    """Return index of a node of the file -> the calls that it was read as, in order."""
    found: dict[int, list[Node]] = {}
    for node in graph.nodes:
        index = node_index(node)
        if node.op == "call_function" and index is not None:
            found.setdefault(index, []).append(node)
    return found


def _arguments(call: Node) -> tuple[str, Any]:
    """Return the target of a call and its arguments, with names in the place of tensors."""

    def name(n: Node) -> Any:
        return f"tensor {n.target}" if n.op == "get_attr" else "value"

    return str(call.target), map_arg((call.args, call.kwargs), name)


def _tensors_read(call: Node) -> list[Node]:
    return [node for node in call.all_input_nodes if node.op == "get_attr"]


class _File:
    """The graph of a file while it is rewritten.

    Args:
        graph: the graph; methods change it.
        version: version of the file format.
        network: the network that was read from the file.
        smaller: the graph of the cut network.
    """

    def __init__(self, graph: onnx.GraphProto, version: int, network: OnnxNetwork, smaller: Graph) -> None:
        self.graph = graph
        self.nodes = dict(enumerate(graph.node))
        self._network = network
        self._smaller = smaller
        self._initializers = {each.name: each for each in graph.initializer}
        self._values = {node.output[0]: node.attribute[0] for node in graph.node if node.op_type == "Constant"}
        #: constants that may be replaced in place: no untouched node reads them
        self._replaceable = {*self._initializers, *self._values} - network.untouched.reads
        self._added = 0
        self._lists_weights = version < _UNLISTED
        #: the original's values that depend on sizes
        self._known = network.known_values(smaller.example[0])

    def set_weights(self, index: int, node: onnx.NodeProto) -> None:
        """Give a node the weights of the cut network.

        Args:
            index: index of the node in the file.
            node: the node; it is changed.
        """
        for slot, name in enumerate(self._network.inputs_of(index)):
            tensor = self._tensor(name)
            if name in self._replaceable:
                if self._has_changed(name):
                    self._set(name, tensor.detach().cpu().numpy())
            # a copy of a vector that the file holds once, a computed constant, or one that untouched nodes read, too
            elif tensor is not None and (self._has_changed(name) or self._has_changed(name.rpartition(".")[0])):
                node.input[slot] = self.add(tensor.detach().cpu().numpy(), name)

    def set_cut_values(
        self, index: int, node: onnx.NodeProto, calls: Iterable[tuple[Node, Node]], whole: Graph
    ) -> None:
        """Give a node the kept part of values that the file computes from sizes, where the cut has dropped a part.

        Args:
            index: index of the node in the file.
            node: the node; it is changed.
            calls: the calls that the node was read as, each before and after the cut.
            whole: the graph of the original.
        """
        # a call with another target has other constants; its rewriter sets them
        same = [(a, b) for a, b in calls if a.target == b.target]
        pairs = [pair for a, b in same for pair in zip(_tensors_read(a), _tensors_read(b), strict=True)]
        for a, b in pairs:
            was, now = whole.tensor(a), self._smaller.tensor(b)
            if str(a.target) in self._network.paths.values() or was.shape == now.shape:
                continue
            numbers = was.detach().cpu().numpy()
            for slot, name in enumerate(self._network.inputs_of(index)):
                found = self._known.get(name)
                if found is not None and np.array_equal(found.reshape(-1), numbers.reshape(-1)):
                    node.input[slot] = self.add(now.detach().cpu().numpy(), f"{name}_kept")

    def _has_changed(self, name: str) -> bool:
        """Whether a constant has other numbers in the cut network."""
        tensor = self._tensor(name)
        if tensor is None:
            return False
        was = fetch(self._network, self._network.paths[name])
        return tensor.shape != was.shape or not torch.equal(tensor, was)

    def _tensor(self, name: str) -> Any:
        """Return the tensor of a constant in the cut network, None if the constant became an argument of calls."""
        try:
            return fetch(self._smaller.module, self._network.paths[name])
        except (KeyError, AttributeError):
            return None

    def _set(self, name: str, array: NDArray[Any]) -> None:
        if name in self._initializers:
            self._initializers[name].CopyFrom(numpy_helper.from_array(array, name))
            for listed in self.graph.input:  # old files list their weights among the inputs
                if listed.name == name:
                    kind = self._initializers[name].data_type
                    listed.CopyFrom(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        else:
            self._values[name].CopyFrom(onnx.helper.make_attribute("value", numpy_helper.from_array(array)))

    def rewrite_node(self, node: onnx.NodeProto, calls: list[Node]) -> None:
        """Rewrite the attributes and inputs of a node to the arguments of its calls in the cut network.

        Raises:
            CannotRewrite: the op has no rewriter, or the rewriter does not handle these calls.
        """
        edit = NodeEdit(node, calls, self.constant, self.add)
        # a Resize may select rows and columns by itself, whether or not the network is cut
        if str(calls[-1].target) == "aten.index_select.default" and node.op_type not in _ALWAYS:
            self._replace_by_gather(edit)
            return
        if op_name(node) not in REWRITERS:
            raise CannotRewrite(f"{node.op_type} {node.name}")
        try:
            REWRITERS[op_name(node)](edit)
        except (KeyError, IndexError, StopIteration, ValueError) as error:
            raise CannotRewrite(f"{node.op_type} {node.name}: {error}") from error

    def _replace_by_gather(self, edit: NodeEdit) -> None:
        """Turn a node into a Gather of the indices that the cut network selects."""
        x, dim, index = edit.calls[-1].args
        indices = self._smaller.tensor(index).detach().cpu().numpy()
        node = edit.node
        inputs = [self._value(x), self.add(indices, f"{node.name}_positions")]
        node.CopyFrom(onnx.helper.make_node("Gather", inputs, [*node.output], name=node.name, axis=dim))

    def freeze_changed_sizes(self, model: onnx.ModelProto, x: Tensor, calls: dict[int, list[Node]]) -> None:
        """Make constants of the values that the rewritten file computes from sizes, but that should not have changed.

        Sizes that a node gives its result may change: they follow if they are those of its result in the cut network.

        Args:
            model: the rewritten file.
            x: an input.
            calls: index of a node -> the calls that it was read as, in the cut network.

        Raises:
            CannotRewrite: an untouched node reads such a value.
        """
        was = self._known
        now = network_of(model).known_values(x)
        for name in now:
            if name in was and not np.array_equal(was[name], now[name]):
                if name in self._network.untouched.reads:
                    raise CannotRewrite(f"an untouched node reads {name}")
                for index, node in self.nodes.items():
                    made = calls[index][-1].meta["val"] if index in calls else None
                    if isinstance(made, Tensor) and now[name].reshape(-1).tolist() == list(made.shape):
                        continue
                    for slot in (i for i, read in enumerate(node.input) if read == name):
                        node.input[slot] = self.add(was[name], f"{name}_was")

    def _value(self, node: Node) -> str:
        """Return the file's name of the value of a call."""
        if node.op == "placeholder":
            return self._network.names.inputs[0]
        index = node_index(node)
        if index is None:
            raise CannotRewrite(node.name)
        which: Any = node.args[1] if "getitem" in str(node.target) else 0
        return str(self.nodes[index].output[which])

    def add(self, array: NDArray[Any], name: str) -> str:
        """Add a constant and return its name: the given one, with a number behind it if that is taken."""
        taken = {each.name for each in self.graph.initializer} | {x for n in self.graph.node for x in n.output}
        while name in taken:
            self._added += 1
            name = f"{name}_{self._added}"
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        if self._lists_weights:
            kind = self.graph.initializer[-1].data_type
            self.graph.input.append(onnx.helper.make_tensor_value_info(name, kind, array.shape))
        return name

    def constant(self, name: str) -> NDArray[Any] | None:
        """Return a constant of the file, None for a computed value."""
        path = self._network.paths.get(name)
        return None if path is None else fetch(self._network, path).detach().numpy()

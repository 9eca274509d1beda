"""One network as ATen calls, and functions that classify nodes."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node

from pfpcli.graph.calls import is_mutable
from pfpcli.graph.invariant import InvariantError
from pfpcli.graph.pending_product import expands
from pfpcli.graph.role import Role
from pfpcli.graph.run import Run

#: What a node of a graph may be: an input, a stored tensor, a call, or the output.
_KINDS = ("placeholder", "get_attr", "call_function", "output")


@dataclass(frozen=True)
class Graph:
    """One network as a functional ATen graph.

    Attributes:
        module: the graph and its tensors.
        example: the inputs that the network was traced with, each float[B, ...].
        dynamic: whether the network takes batches of any size; otherwise it takes only batches of the example's size.
        spatial: whether the network also takes images of other heights and widths.
        stops: the ops behind the end of the graph. The sizes of their results depend on values, or, in an ONNX file,
            they select by values or have no rule. Empty for most networks.
        unread: the ops of an ONNX file that no rule reads, one for each node.
        choices: (number of an output, dimension, op) where an op behind the graph chooses a class along the dimension.
        roles: what the outputs say; empty until they are told (`pfpcli.outputs.roles`).
    """

    module: fx.GraphModule
    example: tuple[Tensor, ...]
    dynamic: bool
    spatial: bool = False
    stops: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()
    choices: tuple[tuple[int, int, str], ...] = ()
    roles: tuple[Role, ...] = ()

    def __call__(self, *inputs: Tensor) -> Any:
        """Run the network; a large product of all positions with all positions is computed in pieces.

        Args:
            inputs: float[N, ...] for each input.
        """
        return Run(self.module).run(*inputs) if self._compares_positions else self.module(*inputs)

    @cached_property
    def _compares_positions(self) -> bool:
        return any(map(expands, self.nodes))

    @property
    def is_undecided(self) -> bool:
        """Whether ops behind the graph select by its outputs, and the output is not just one score for each class."""
        outputs = [node.meta["val"] for node in self.outputs]
        return bool(self.stops) and not (len(outputs) == 1 and outputs[0].dim() == 2)

    @property
    def nodes(self) -> Iterator[Node]:
        """The nodes in the order in which they run."""
        return iter(self.module.graph.nodes)

    @property
    def batch(self) -> int:
        """Number of samples in the example batch."""
        return int(self.example[0].shape[0])

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size that the network takes; None if it takes any."""
        return None if self.dynamic else self.batch

    @property
    def inputs(self) -> list[Node]:
        """The placeholders, in the order of the arguments."""
        return [node for node in self.nodes if node.op == "placeholder"]

    @property
    def outputs(self) -> list[Node]:
        """The nodes whose values the network returns."""
        output = next(node for node in self.nodes if node.op == "output")
        return [node for node in torch.utils._pytree.tree_leaves(output.args) if isinstance(node, Node)]

    def to(self, device: torch.device | str) -> None:
        """Move the tensors to a device, and let calls that create tensors create them there."""
        self.module.to(device)
        for node in self.nodes:
            if node.op == "call_function" and node.kwargs.get("device") is not None:
                node.kwargs = {**node.kwargs, "device": torch.device(device)}
        self.module.recompile()

    @contextmanager
    def on(self, device: torch.device | str) -> Iterator[None]:
        """Move the graph to a device within a block, and back to its own device after the block."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        before = next((tensor.device for tensor in tensors), torch.device("cpu"))
        if before == torch.device(device):  # to move it compiles it anew, which takes longer than a small network
            yield
            return
        self.to(device)
        try:
            yield
        finally:
            self.to(before)

    def tensor(self, node: Node) -> Tensor:
        """Return the parameter, buffer or constant of a `get_attr` node."""
        tensor: Tensor = fetch(self.module, str(node.target))
        return tensor

    def check(self) -> None:
        """Check what every step after tracing relies on.

        Each node is an input, a stored tensor that exists, a call or the output; each node has a value and comes after
        the nodes that it reads; no call writes to a tensor that the graph reads later; there is an input for each
        example.

        Raises:
            InvariantError: one of these does not hold.
        """
        position = {node: i for i, node in enumerate(self.nodes)}
        for node, i in position.items():
            if node.op not in _KINDS:
                raise InvariantError(f"node {node}: is a {node.op}, expected one of {', '.join(_KINDS)}")
            if "val" not in node.meta:
                raise InvariantError(f"node {node}: has no value in meta['val'], expected a tensor or a number")
            late = next((each for each in node.all_input_nodes if position.get(each, len(position)) >= i), None)
            if late is not None:
                raise InvariantError(f"node {node}: reads {late}, which does not come before it")
            if node.op == "get_attr" and not _exists(self.module, str(node.target)):
                raise InvariantError(f"node {node}: reads {node.target}, which the module does not have")
            if node.op == "call_function" and is_mutable(node.target) and not _is_last_use(node, position):
                raise InvariantError(f"node {node}: {node.target} writes to a tensor that the graph reads later")
        if len(self.inputs) != len(self.example):
            raise InvariantError(f"the graph has {len(self.inputs)} inputs, expected {len(self.example)}")


def _is_last_use(node: Node, position: dict[Node, int]) -> bool:
    """Whether a call writes to a stored tensor after all other uses; torch ends a graph that updates a buffer so."""
    written = node.args[0]
    is_stored = isinstance(written, Node) and written.op == "get_attr"
    return is_stored and not node.users and all(position[each] <= position[node] for each in written.users)  # type: ignore


def _exists(module: nn.Module, name: str) -> bool:
    try:
        fetch(module, name)
    except AttributeError:
        return False
    return True


@dataclass(frozen=True)
class Names:
    """The names of a network's inputs and outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def fetch(module: nn.Module, name: str) -> Any:
    """Return the attribute at a dotted name."""
    return operator.attrgetter(name)(module)


def owner(node: Node) -> str:
    """Return the dotted name of the module that a node belongs to.

    A stored tensor belongs to the module that holds it, a call to the module that holds its weight, and a call without
    a weight to the module that made the call.
    """
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0] or str(node.target)
    for argument in node.all_input_nodes[1:]:
        if argument.op == "get_attr":
            return owner(argument)
    stack = node.meta.get("nn_module_stack")
    path = list(stack.values())[-1][0] if stack else ""
    return str(path) or node.name


def is_tensor(node: Node) -> bool:
    """Whether the value of a node is one tensor."""
    return isinstance(node.meta.get("val"), Tensor)


def is_constant(node: Node) -> bool:
    """Whether a node is a stored tensor or depends on stored tensors alone."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:  # a loop, because a deep network has more nodes in a row than Python allows nested calls
        each = waiting.pop()
        if each.op == "get_attr" or each in seen:
            continue
        if each.op != "call_function":
            return False
        seen.add(each)
        waiting += reversed(each.all_input_nodes)
    return True


def reached(starts: Iterable[Node], step: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """Return the nodes that steps lead to from some nodes, and these.

    Args:
        starts: the nodes.
        step: node -> the next nodes, for example those that it reads.
    """
    found: set[Node] = set()
    waiting = list(starts)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += step(node)
    return found


def add_tensor(module: nn.Module, path: str, value: Tensor) -> None:
    """Register a parameter or buffer under a dotted name, and create the modules in between."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = getattr(module, parent)
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)


def path_beside(module: nn.Module, node: Node, name: str) -> str:
    """Return a dotted name for a new tensor: inside the module that a node belongs to, if there is one.

    The name gets underscores as long as the module has an attribute of that name, e.g. its method `to`.
    """
    path = owner(node)
    is_module = _exists(module, path) and isinstance(fetch(module, path), nn.Module)
    found = f"{path}.{name}" if is_module else name
    while _exists(module, found):
        found += "_"
    return found

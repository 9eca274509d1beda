"""Graph: one network as ATen calls, and what can be asked of its nodes."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.node import Node


@dataclass(frozen=True)
class Graph:
    """One network as a functional ATen graph.

    Attributes:
        module: the graph and its tensors; calling it runs the network.
        example: the inputs it was traced with, each float[B, ...].
        dynamic: whether the batch size is free; otherwise it is the example's.
        spatial: whether the network also takes images of other heights and widths.
        stops: the ops it stops in front of: the sizes of their results depend on values, or, in an ONNX file, they pick
            or have no rule; mostly there are none.
        unread: the ops of an ONNX file that no rule reads, one for each node.
    """

    module: fx.GraphModule
    example: tuple[Tensor, ...]
    dynamic: bool
    spatial: bool = False
    stops: tuple[str, ...] = ()
    unread: tuple[str, ...] = ()

    @property
    def is_undecided(self) -> bool:
        """Whether its outputs are what something is picked by behind it, other than a class by one vector of scores."""
        outputs = [node.meta["val"] for node in self.outputs]
        return bool(self.stops) and not (len(outputs) == 1 and outputs[0].dim() == 2)

    @property
    def nodes(self) -> Iterator[Node]:
        """The nodes in the order they run."""
        return iter(self.module.graph.nodes)

    @property
    def batch(self) -> int:
        """Samples in the example batch."""
        return int(self.example[0].shape[0])

    @property
    def fixed_batch(self) -> int | None:
        """The only batch size it takes, None if it takes any."""
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
        """Move the tensors, and the ones that calls will make; the graph stays the same network."""
        self.module.to(device)
        for node in self.nodes:
            if node.op == "call_function" and node.kwargs.get("device") is not None:
                node.kwargs = {**node.kwargs, "device": torch.device(device)}
        self.module.recompile()

    @contextmanager
    def on(self, device: torch.device | str) -> Iterator[None]:
        """On a device for the time of a block, and back where it was after it."""
        tensors = itertools.chain(self.module.parameters(), self.module.buffers())
        before = next((tensor.device for tensor in tensors), torch.device("cpu"))
        self.to(device)
        try:
            yield
        finally:
            self.to(before)

    def tensor(self, node: Node) -> Tensor:
        """The parameter, buffer or constant a `get_attr` node stands for."""
        tensor: Tensor = fetch(self.module, str(node.target))
        return tensor


@dataclass(frozen=True)
class Names:
    """The names of a network's inputs and outputs."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


def fetch(module: nn.Module, name: str) -> Any:
    """The attribute a dotted name leads to."""
    return operator.attrgetter(name)(module)


def owner(node: Node) -> str:
    """Dotted name of the module a node belongs to: the owner of its parameter, or the one that made the call."""
    if node.op == "get_attr":
        return str(node.target).rpartition(".")[0] or str(node.target)
    for argument in node.all_input_nodes[1:]:
        if argument.op == "get_attr":
            return owner(argument)
    stack = node.meta.get("nn_module_stack")
    path = list(stack.values())[-1][0] if stack else ""
    return str(path) or node.name


def is_tensor(node: Node) -> bool:
    """Whether the node's value is one tensor."""
    return isinstance(node.meta.get("val"), Tensor)


def is_constant(node: Node) -> bool:
    """Whether a node is a parameter, a buffer or computed from such alone."""
    seen: set[Node] = set()
    waiting = [node]
    while waiting:  # a loop: deep networks have more nodes in a row than Python has frames
        each = waiting.pop()
        if each.op == "get_attr" or each in seen:
            continue
        if each.op != "call_function":
            return False
        seen.add(each)
        waiting += reversed(each.all_input_nodes)
    return True


def add_tensor(module: nn.Module, path: str, value: Tensor) -> None:
    """Register a parameter or buffer under a dotted name, making the modules on the way."""
    *parents, name = path.split(".")
    for parent in parents:
        if not hasattr(module, parent):
            module.add_module(parent, nn.Module())
        module = getattr(module, parent)
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
    else:
        module.register_buffer(name, value)

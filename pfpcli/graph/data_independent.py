"""Static part: what a network computes before sizes begin to depend on values.

Detectors end in code that picks boxes by their scores; how many there are is known only when they are there, and no
exporter follows that. The network in front of it is recorded on an example input; the tensors that reach the picking
are its outputs. Nothing behind them is lost: what reads an output sees it unchanged in size.
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
    UnsupportedOperatorException,
)
from torch.fx.experimental.proxy_tensor import disable_proxy_modes_tracing, make_fx
from torch.fx.node import Node, map_arg
from torch.overrides import TorchFunctionMode

from pfpcli.errors import TraceError
from pfpcli.graph.calls import is_pointwise
from pfpcli.graph.canonical import is_view_of
from pfpcli.graph.quiet import quiet

#: Ops that put elements in the order of their values.
_ORDERS = {"aten.argsort.default", "aten.sort.default", "aten.sort.stable", "aten.topk.default"}


def data_independent_part(module: nn.Module, example: Sequence[Tensor]) -> tuple[fx.GraphModule, list[str]]:
    """Record a network on an example, up to where sizes depend on values.

    Args:
        module: in eval mode; it is left unchanged.
        example: the inputs; the recording is for their sizes alone.

    Returns:
        (the network with the module's own tensors under their own names, the calls it stops at: those whose result has
        no size that could be known in advance; none where it goes to the end).

    Raises:
        TraceError: what is computed depends on values, not just how many of them there are.
        Exception: what the forward pass, or torch's recorder, raises.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())

    reads = _Reads()

    def call(values: list[Tensor], *inputs: Tensor) -> Any:
        with reads:
            result = torch.func.functional_call(module, dict(zip(tensors, values, strict=True)), inputs)
        return reads.tensors, result

    with torch.no_grad(), quiet():
        recorded = make_fx(call, tracing_mode="real", pre_dispatch=True)(list(tensors.values()), *example)
    graph = recorded.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    held, inputs = placeholders[: len(tensors)], placeholders[len(tensors) :]
    stops, behind = _picking(recorded, [*tensors.values(), *example])
    if stops:  # an order by value is part of the picking, and rounding changes it
        for node in graph.nodes:
            if str(node.target) in _ORDERS or (behind.intersection(node.all_input_nodes) and node.op != "output"):
                behind.add(node)
    computed = {*inputs}
    for node in graph.nodes:
        if node not in behind and computed.intersection(node.all_input_nodes):
            computed |= {node, *_written(node)}
    output = next(node for node in graph.nodes if node.op == "output")
    if any(node in computed - behind for node in output.args[0][: len(reads.tensors)]):
        raise TraceError("Python reads a value that the network computes", "branches on values have to be rewritten")
    ends = [
        node
        for node in graph.nodes
        if node in computed - behind and any(user in behind or user.op == "output" for user in node.users)
    ]
    # an image that is looked at again behind the picking is no output
    outputs = tuple(each for each in dict.fromkeys(_source(node, computed) for node in ends) if each not in inputs)

    constants = {str(node.target): getattr(recorded, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
    for name, placeholder in zip(tensors, held, strict=True):
        with graph.inserting_before(placeholder):
            placeholder.replace_all_uses_with(graph.create_node("get_attr", name))
        graph.erase_node(placeholder)
    output.args = (outputs,)
    graph.set_codegen(fx.graph.CodeGen())
    for node in reversed(list(graph.nodes)):
        if node in behind:
            graph.erase_node(node)
    part = fx.GraphModule({**constants, **tensors}, graph)
    part.graph.eliminate_dead_code()
    return part, stops


class _Reads(TorchFunctionMode):
    """Lets Python read values while a network is recorded, and remembers the tensors it read."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Read outside the recording what it could not hold."""
        if func in _READS:
            return self._read(func, *args, **(kwargs or {}))
        if func in (Tensor.__getitem__, Tensor.__setitem__):
            x, index, *rest = args
            args = (x, tuple(map(self._number, index)) if isinstance(index, tuple) else self._number(index), *rest)
        return func(*args, **(kwargs or {}))

    def _read(self, func: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        self.tensors.append(x)
        with disable_proxy_modes_tracing():
            return func(x, *args, **kwargs)

    def _number(self, index: Any) -> Any:
        """A slice between numbers, where one between tensors was asked for."""
        if not isinstance(index, slice):
            return index
        ends = (index.start, index.stop, index.step)
        return slice(*(self._read(Tensor.item, end) if isinstance(end, Tensor) else end for end in ends))


#: How Python gets at the values of a tensor.
_READS = {Tensor.__bool__, Tensor.__float__, Tensor.__index__, Tensor.__int__, Tensor.item, Tensor.tolist}


def _picking(recorded: fx.GraphModule, values: Sequence[Tensor]) -> tuple[list[str], set[Node]]:
    """The first op that torch cannot tell the size of without values, if any, and all nodes that come after it.

    What is computed later need not read it to depend on it: Python may have looked at its size.
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    known: dict[Node, Any] = {}
    fakes = iter(values)
    nodes = [node for node in recorded.graph.nodes if node.op != "output"]
    for i, node in enumerate(nodes):
        if node.op == "call_function":
            args, kwargs = map_arg((node.args, node.kwargs), known.__getitem__)
            try:
                with mode, torch.no_grad():
                    known[node] = node.target(*args, **kwargs)
            except (DataDependentOutputException, DynamicOutputShapeException, UnsupportedOperatorException):
                return [str(node.target)], set(nodes[i:])
        else:
            value = next(fakes) if node.op == "placeholder" else getattr(recorded, str(node.target))
            known[node] = mode.from_tensor(value, static_shapes=True)
    return [], set()


def _written(node: Node) -> Iterator[Node]:
    """What a call writes to: whoever reads it from then on reads what was computed."""
    schema = getattr(node.target, "_schema", None)
    written = node.args[0] if schema is not None and schema.is_mutable and node.args else None
    while isinstance(written, Node):
        yield written
        base = written.args[0] if written.args else None
        written = base if isinstance(base, Node) and is_view_of(written, base) else None


def _source(node: Node, computed: set[Node]) -> Node:
    """Where a chain of views and pointwise ops began: one whole tensor rather than its pieces."""
    while (
        node.target is operator.getitem
        or is_pointwise(node.target)
        or (node.args and isinstance(node.args[0], Node) and is_view_of(node, node.args[0]))
    ):
        sources = [each for each in node.all_input_nodes if each in computed]
        if len(sources) != 1:
            break
        node = sources[0]
    return node

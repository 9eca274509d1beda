"""The part of a network that comes before sizes depend on values.

Detectors end in code that selects boxes by their scores. Only the values tell how many boxes there are, and no exporter
follows that. The network in front of the selection is recorded on an example input; the tensors that the selection
reads are its outputs. A cut network can be put back in front of the selection, because no output changes its size.
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
from pfpcli.graph.calls import is_mutable, is_pointwise
from pfpcli.graph.functional import is_view_of
from pfpcli.graph.quiet import quiet

#: Ops that sort elements by their values.
_ORDERS = {"aten.argsort.default", "aten.sort.default", "aten.sort.stable", "aten.topk.default"}


def data_independent_part(module: nn.Module, example: Sequence[Tensor]) -> tuple[fx.GraphModule, list[str]]:
    """Record a network on an example, up to the first op whose sizes depend on values.

    Args:
        module: in eval mode; it is left unchanged.
        example: the inputs; the recording is valid for their sizes only.

    Returns:
        (the recorded network, with the tensors of the module under their own names; the ops that it stops in front of,
        because the sizes of their results depend on values: empty if the recording reaches the end).

    Raises:
        TraceError: values decide which calls are made, not only how large their results are.
        Exception: raised by the forward pass or by torch's recorder.
    """
    tensors = dict(module.named_parameters()) | dict(module.named_buffers())
    recorded, read = _record(module, tensors, example)
    graph = recorded.graph
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    held, inputs = placeholders[: len(tensors)], placeholders[len(tensors) :]
    stops, behind = _selection(recorded, [*tensors.values(), *example])
    computed = _computed(graph, inputs, behind)
    output = next(node for node in graph.nodes if node.op == "output")
    if any(node in computed - behind for node in output.args[0][:read]):
        raise TraceError("Python reads a value that the network computes", "branches on values have to be rewritten")
    ends = [
        node
        for node in graph.nodes
        if node in computed - behind and any(user in behind or user.op == "output" for user in node.users)
    ]
    # an image that the selection reads again is no output
    outputs = tuple(each for each in dict.fromkeys(_source(node, computed) for node in ends) if each not in inputs)
    output.args = (outputs,)
    return _part(recorded, tensors, held, behind), stops


def _record(module: nn.Module, tensors: dict[str, Tensor], example: Sequence[Tensor]) -> tuple[fx.GraphModule, int]:
    """Record a forward pass as a function of the module's tensors and the inputs.

    Returns:
        (the recording, whose first results are the tensors that Python read; how many of these there are).
    """
    reads = _Reads()

    def call(values: list[Tensor], *inputs: Tensor) -> Any:
        with reads:
            result = torch.func.functional_call(module, dict(zip(tensors, values, strict=True)), inputs)
        return reads.tensors, result

    with torch.no_grad(), quiet():
        recorded = make_fx(call, tracing_mode="real", pre_dispatch=True)(list(tensors.values()), *example)
    return recorded, len(reads.tensors)


def _computed(graph: fx.Graph, inputs: list[Node], behind: set[Node]) -> set[Node]:
    """Return the inputs and the nodes that depend on them, without the nodes behind the end of the part."""
    computed = {*inputs}
    for node in graph.nodes:
        if node not in behind and computed.intersection(node.all_input_nodes):
            computed |= {node, *_written(node)}
    return computed


def _part(recorded: fx.GraphModule, tensors: dict[str, Tensor], held: list[Node], behind: set[Node]) -> fx.GraphModule:
    """Return the recording without the nodes behind its end, with stored tensors instead of the inputs `held`."""
    graph = recorded.graph
    constants = {str(node.target): getattr(recorded, str(node.target)) for node in graph.nodes if node.op == "get_attr"}
    for name, placeholder in zip(tensors, held, strict=True):
        with graph.inserting_before(placeholder):
            placeholder.replace_all_uses_with(graph.create_node("get_attr", name))
        graph.erase_node(placeholder)
    graph.set_codegen(fx.graph.CodeGen())
    for node in reversed(list(graph.nodes)):
        if node in behind:
            graph.erase_node(node)
    part = fx.GraphModule({**constants, **tensors}, graph)
    part.graph.eliminate_dead_code()
    return part


class _Reads(TorchFunctionMode):
    """Lets Python read values while a network is recorded, and collects the tensors that Python reads."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run a function; if it reads values, run it outside of the recording."""
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
        """Return a slice between numbers for a slice between tensors, and any other index as it is."""
        if not isinstance(index, slice):
            return index
        ends = (index.start, index.stop, index.step)
        return slice(*(self._read(Tensor.item, end) if isinstance(end, Tensor) else end for end in ends))


#: The functions with which Python reads the values of a tensor.
_READS = {Tensor.__bool__, Tensor.__float__, Tensor.__index__, Tensor.__int__, Tensor.item, Tensor.tolist}


def _selection(recorded: fx.GraphModule, values: Sequence[Tensor]) -> tuple[list[str], set[Node]]:
    """Find the first op whose result has no size that torch can tell without values.

    Args:
        recorded: the recording.
        values: one for each of its inputs.

    Returns:
        (that op, if there is one; the nodes that belong to the selection). All nodes after the op belong to it, because
        Python may have read a size, which no node shows. Sorting belongs to it as well: rounding changes an order.
    """
    stop, behind = _first_of_unknown_size(recorded, values)
    if stop:
        for node in recorded.graph.nodes:
            if str(node.target) in _ORDERS or (behind.intersection(node.all_input_nodes) and node.op != "output"):
                behind.add(node)
    return stop, behind


def _first_of_unknown_size(recorded: fx.GraphModule, values: Sequence[Tensor]) -> tuple[list[str], set[Node]]:
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
    """Yield the tensor that a call writes to, and the tensors that it is a view of."""
    written = node.args[0] if is_mutable(node.target) and node.args else None
    while isinstance(written, Node):
        yield written
        base = written.args[0] if written.args else None
        written = base if isinstance(base, Node) and is_view_of(written, base) else None


def _source(node: Node, computed: set[Node]) -> Node:
    """Return the node at which a chain of views and pointwise ops begins: one tensor instead of several pieces."""
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

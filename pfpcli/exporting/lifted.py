"""Lifted: a graph as a program of torch, without tracing it again.

`torch.export` would trace the graph with its free sizes as symbols, which takes most of the time of an export. The
graph is traced already: here its sizes are computed anew, and its stored tensors become inputs ("lifted"), as programs
have them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx.node import Node
from torch.utils._pytree import TreeSpec, tree_leaves, tree_structure

from pfpcli.graph.calls import is_mutable
from pfpcli.graph.graph import fetch, is_tensor
from pfpcli.graph.propagate import propagate_free

#: What the names of inputs begin with that stand for stored tensors, as torch names them.
_PREFIXES = {InputKind.PARAMETER: "p", InputKind.BUFFER: "b"}


class CannotLift(Exception):
    """The graph is no program as it is: a call writes to its operand, or a value that has to be a tensor is none."""


def lifted(module: fx.GraphModule, example: tuple[Tensor, ...], free: Sequence[Sequence[int]]) -> ExportedProgram:
    """Return a graph as a program.

    Args:
        module: the graph. Its nodes have the values that `propagate.propagate` gives them.
        example: its inputs.
        free: the dimensions of each input whose sizes are free, where the graph does not fix them.

    Raises:
        CannotLift: the graph is no program as it is.
        Exception: whatever torch raises about sizes that are not known before a call runs, or a release of torch whose
            programs are made otherwise.
    """
    from torch._export.verifier import TrainingIRVerifier

    module = fx.GraphModule(module, copy.deepcopy(module.graph))
    graph, structure = module.graph, _structure(module)
    ranges = propagate_free(module, example, free)
    outputs = _flatten_outputs(graph)
    inputs = [node for node in graph.nodes if node.op == "placeholder"]
    names = [str(node.target) for node in inputs]
    signature = ExportGraphSignature(
        [*_lift(module, inputs), *(_input(InputKind.USER_INPUT, node, None) for node in inputs)],
        [OutputSpec(OutputKind.USER_OUTPUT, TensorArgument(node.name), None) for node in outputs],
    )
    call = ModuleCallSignature([], [], tree_structure((example, {})), structure, names)
    return ExportedProgram(
        root=nn.Module(),
        graph=graph,
        graph_signature=signature,
        state_dict=module.state_dict(keep_vars=True),
        range_constraints={symbol: ranges[symbol] for symbol in _symbols(inputs)},
        module_call_graph=[ModuleCallEntry("", call)],
        example_inputs=(example, {}),
        constants={},
        verifiers=[TrainingIRVerifier],
    )


def _structure(module: fx.GraphModule) -> TreeSpec:
    """Return the structure of what a module returns."""
    info = getattr(module.graph._codegen, "pytree_info", None)
    told: TreeSpec | None = info.out_spec if info is not None else None
    return told if told is not None else tree_structure(module.graph.output_node().args[0])


def _flatten_outputs(graph: fx.Graph) -> list[Node]:
    """Let a graph return a flat tuple of tensors; returns their nodes."""
    output = graph.output_node()
    leaves = tree_leaves(output.args)
    if not all(isinstance(leaf, Node) and is_tensor(leaf) for leaf in leaves):
        raise CannotLift("an output is no tensor")
    output.args = (tuple(leaves),)
    return leaves


def _lift(module: fx.GraphModule, inputs: Sequence[Node]) -> list[InputSpec]:
    """Replace the stored tensors of a graph by inputs, before its own inputs; returns what a program says of them."""
    graph = module.graph
    if any(node.op == "call_function" and is_mutable(node.target) for node in graph.nodes):
        raise CannotLift("a call writes to its operand")
    reads: dict[str, list[Node]] = {}
    for node in [each for each in graph.nodes if each.op == "get_attr"]:
        reads.setdefault(str(node.target), []).append(node)
    stored = {name: fetch(module, name) for name in reads}
    if not all(isinstance(tensor, Tensor) for tensor in stored.values()):
        raise CannotLift("a call has a graph of its own")
    _put_first(graph, inputs)
    specs = []
    for name in sorted(reads, key=lambda name: not isinstance(stored[name], nn.Parameter)):
        kind = InputKind.PARAMETER if isinstance(stored[name], nn.Parameter) else InputKind.BUFFER
        with graph.inserting_before(inputs[0]):
            made = graph.placeholder(f"{_PREFIXES[kind]}_{re.sub('[^0-9a-zA-Z_]', '_', name)}")
        made.target, made.meta = made.name, {"val": reads[name][0].meta["val"]}
        specs.append(_input(kind, made, name))
        for node in reads[name]:
            node.replace_all_uses_with(made)
            graph.erase_node(node)
    return specs


def _put_first(graph: fx.Graph, inputs: Sequence[Node]) -> None:
    """Move the inputs of a graph before all other nodes."""
    for node in reversed(inputs):
        first = next(iter(graph.nodes))
        if first is not node:
            first.prepend(node)


def _input(kind: InputKind, node: Node, target: str | None) -> InputSpec:
    return InputSpec(kind, TensorArgument(node.name), target, True if kind == InputKind.BUFFER else None)


def _symbols(inputs: Sequence[Node]) -> set[Any]:
    """Return the symbols of the free sizes of some inputs."""
    sizes = [size for node in inputs for size in node.meta["val"].shape]
    return {symbol for size in sizes if not isinstance(size, int) for symbol in size.node.expr.free_symbols}

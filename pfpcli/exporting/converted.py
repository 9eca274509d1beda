"""Converted: a program that torch's ONNX exporter takes call by call, without its decompositions.

The exporter decomposes every program, for which torch traces the program twice more with its free sizes as symbols:
most of the time of an export. Nearly all calls of most networks have ONNX functions of their own. A few others compute
what another call computes that has one; these are replaced here.
"""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx.node import Node

from pfpcli.graph.calls import bind

_ATEN = torch.ops.aten


class Converted(ExportedProgram):
    """A program that is exported as it is."""

    def run_decompositions(self, *_: Any, **__: Any) -> ExportedProgram:
        """Return this program, for the exporter, which asks for its decompositions."""
        return self


def converted(program: ExportedProgram) -> Converted:
    """Return a copy of a program in calls that have ONNX functions, as far as they are known here.

    The exporter fails on any other call, and changes the copy.
    """
    module = fx.GraphModule(program.graph_module, _copied(program.graph))
    for node in list(module.graph.nodes):
        with module.graph.inserting_before(node):
            made = _REPLACED.get(node.target, _nothing)(node)
        if made is not None:
            made.meta = dict(node.meta)
            node.replace_all_uses_with(made)
            module.graph.erase_node(node)
            made.name = node.name  # the signature names the outputs
    module.recompile()
    return Converted(
        root=module,
        graph=module.graph,
        graph_signature=program.graph_signature,
        state_dict=program.state_dict,
        range_constraints=program.range_constraints,
        module_call_graph=program.module_call_graph,
        example_inputs=program.example_inputs,
        constants=program.constants,
        verifiers=program.verifiers,
    )


def _copied(graph: fx.Graph) -> fx.Graph:
    """Return a copy of a graph with the names of its nodes, which the signature of a program names."""
    found = copy.deepcopy(graph)
    for node, there in zip(found.nodes, graph.nodes, strict=True):
        node.name = there.name  # a copy renames what has the name of a function of Python, such as input
    return found


def _batch_norm(node: Node) -> Node | None:
    """The first result of a batch norm by running statistics; None for one that computes statistics."""
    given = bind(node)
    if given["training"] or given["running_mean"] is None or given["running_var"] is None:
        return None
    names = ("input", "weight", "bias", "running_mean", "running_var", "momentum", "eps")
    norm = _called(node, _ATEN._native_batch_norm_legit_no_training.default, *(given[name] for name in names))
    made = node.meta["val"]
    norm.meta["val"] = made, made.new_empty(0), made.new_empty(0)
    return _called(node, operator.getitem, norm, 0)


def _mean(node: Node) -> Node | None:
    """The mean over all positions of an adaptive pooling to one position; None for more positions."""
    x, sizes = node.args[:2]
    if not isinstance(sizes, (list, tuple)) or any(size != 1 for size in sizes):
        return None
    return _called(node, _ATEN.mean.dim, x, [*range(-len(sizes), 0)], True)


def _convolution(node: Node) -> Node:
    """A transposed convolution as the general one."""
    given = bind(node)
    ranks = given["weight"].meta["val"].dim() - 2
    stride, padding, dilation, more = (
        value if isinstance(value := given[name], (list, tuple)) else [value] * ranks
        for name in ("stride", "padding", "dilation", "output_padding")
    )
    operands = (given[name] for name in ("input", "weight", "bias"))
    settings = stride, padding, dilation, True, more, given["groups"]
    return _called(node, _ATEN.convolution.default, *operands, *settings)


def _flattened(node: Node) -> Node | None:
    """A reshape that merges the same dimensions; None for the dimensions that ONNX merges in one call."""
    given = bind(node)
    x, rank = given["self"], given["self"].meta["val"].dim()
    start, stop = given["start_dim"] % max(1, rank), given["end_dim"] % max(1, rank) + 1
    if rank < 2 or (start, stop) in ((1, rank), (0, rank - 1)):
        return None
    return _reshaped(node, x, [*range(start)], [-1], [*range(stop, rank)])


def _unflattened(node: Node) -> Node:
    """A reshape that splits the same dimension."""
    given = bind(node)
    x, rank = given["self"], given["self"].meta["val"].dim()
    dim = given["dim"] % rank
    return _reshaped(node, x, [*range(dim)], given["sizes"], [*range(dim + 1, rank)])


def _reshaped(node: Node, x: Node, before: list[int], sizes: Sequence[Any], after: list[int]) -> Node:
    """A reshape to some dimensions of x, new ones of given sizes, and other dimensions of x."""
    kept = {dim: x.meta["val"].shape[dim] for dim in (*before, *after)}
    free = [dim for dim, size in kept.items() if not isinstance(size, int)]
    if len(free) == 1 and all(isinstance(size, int) and size != -1 for size in sizes):
        kept[free.pop()] = -1
    kept.update({dim: _size(node, x, dim) for dim in free})
    wanted = [*(kept[dim] for dim in before), *sizes, *(kept[dim] for dim in after)]
    return _called(node, _ATEN.reshape.default, x, wanted)


def _size(node: Node, x: Node, dim: int) -> Node:
    """A node with a free size of x: one that comes before a call and has the size already, or a new one."""
    size = x.meta["val"].shape[dim]
    before = itertools.takewhile(lambda other: other is not node, node.graph.nodes)
    sizes: list[Node] = [each for each in before if isinstance(each.meta.get("val"), torch.SymInt)]
    for each in sizes:
        if each.meta["val"].node.expr == size.node.expr:
            return each
    made = _called(node, _ATEN.sym_size.int, x, dim)
    made.meta["val"] = size
    return made


def _nothing(_: Node) -> None:
    """No call for one that has an ONNX function."""


def _called(node: Node, target: Any, *args: Any) -> Node:
    return node.graph.call_function(target, args)


#: Call without an ONNX function, or with one of many nodes -> what returns a call that computes the same and has a
#: better one, None where there is none.
_REPLACED: dict[Any, Callable[[Node], Node | None]] = {
    _ATEN.batch_norm.default: _batch_norm,
    _ATEN.adaptive_avg_pool1d.default: _mean,
    _ATEN.adaptive_avg_pool2d.default: _mean,
    _ATEN.adaptive_avg_pool3d.default: _mean,
    _ATEN.conv_transpose1d.default: _convolution,
    _ATEN.conv_transpose2d.input: _convolution,
    _ATEN.conv_transpose3d.input: _convolution,
    _ATEN.flatten.using_ints: _flattened,
    _ATEN.unflatten.int: _unflattened,
}

"""Program: a graph as a program of torch, which a .pt2 file holds and the ONNX exporters take.

torch writes paths and stack traces of this machine into the metadata of nodes. A program has none of them.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.export import ExportedProgram

from pfpcli.errors import TraceError
from pfpcli.exporting.lifted import lifted
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import export_program, free_dims, open_dims

#: Metadata with the origin of a node on this machine and in the user's source code.
_ORIGINS = ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node", "torch_fn", "custom")


def program_of(graph: Graph) -> ExportedProgram:
    """Export a graph as a program, without metadata about its origin."""
    exported = _with_free_sizes(replace(graph, module=_with_plain_attention(graph.module)))
    for module in exported.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            for key in _ORIGINS:
                node.meta.pop(key, None)
    return exported


def _with_plain_attention(module: fx.GraphModule) -> fx.GraphModule:
    """Return a copy in which the exporters can convert every call of attention."""
    attention = torch.ops.aten.scaled_dot_product_attention.default
    copied = fx.GraphModule(module, copy.deepcopy(module.graph))
    for node in copied.graph.find_nodes(op="call_function", target=attention):
        _join_batch(node)
    for node in copied.graph.find_nodes(op="call_function", target=attention):
        _lay_out(node)
    copied.recompile()
    return copied


def _join_batch(node: Any) -> None:
    """Merge the leading dimensions of attention with more than four dimensions, since the exporters take four."""
    graph, aten = node.graph, torch.ops.aten
    shapes = [tuple(operand.meta["val"].shape) for operand in node.args[:3]]
    extra = len(shapes[0]) - 4
    same = len({shape[: extra + 1] for shape in shapes}) == 1
    if extra < 1 or not same or len(node.args) > 3 or node.kwargs.get("attn_mask"):
        return
    sizes = [-1, *shapes[0][1 : extra + 1]]
    with graph.inserting_before(node):
        node.args = tuple(graph.call_function(aten.flatten.using_ints, (x, 0, extra)) for x in node.args)
    with graph.inserting_after(node):
        whole = graph.call_function(aten.unflatten.int, (node, 0, sizes))
    node.replace_all_uses_with(whole, lambda user: user is not whole)


def _lay_out(node: Any) -> None:
    """Copy every transpose of an attention's result into contiguous memory.

    The exporters decompose attention with a mask into calls whose result has another memory layout than the traced
    one. A view of its transpose, which needed no copy in the traced network, would be invalid.
    """
    for user in [user for user in node.users if user.target is torch.ops.aten.transpose.int]:
        with node.graph.inserting_after(user):
            kept = {"memory_format": torch.contiguous_format}
            copied = node.graph.call_function(torch.ops.aten.clone.default, (user,), kept)
        user.replace_all_uses_with(copied, lambda other, copied=copied: other is not copied)


def _with_free_sizes(graph: Graph) -> ExportedProgram:
    if not graph.dynamic:
        return _program(graph.module, graph.example, [()] * len(graph.example))
    try:
        exported = _program(graph.module, graph.example, free_dims(graph.example, spatial=graph.spatial))
    except TraceError:
        exported = None
    if exported is None or not all(0 in dims for dims in open_dims(exported)):
        exported = _program(graph.module, graph.example, free_dims(graph.example, spatial=False))
    return exported


def _program(module: fx.GraphModule, example: tuple[Tensor, ...], free: Sequence[tuple[int, ...]]) -> ExportedProgram:
    try:
        return lifted(module, example, free)
    except Exception:  # whatever torch raises about sizes or programs: it can trace more than this
        return export_program(module, example, free if any(free) else ())

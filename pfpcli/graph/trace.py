"""Tracing: a module of any kind becomes one functional ATen graph.

Given: a module, or a program exported by torch, and an example batch. Gives back: a `Graph` whose nodes are inputs,
stored tensors (parameters, buffers and constants under their dotted names), ATen calls, and the output. Every node
carries `meta["val"]`: a fake tensor with concrete sizes, or the number that the node computes.

A forward pass that `torch.export` cannot follow is a TraceError.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.utils._pytree import tree_leaves

from pfpcli.errors import InputError, TraceError
from pfpcli.graph.constants import fold_constants
from pfpcli.graph.data_independent import data_independent_part
from pfpcli.graph.difference import largest_difference
from pfpcli.graph.functional import drop_assertions, functionalise, inline_regions
from pfpcli.graph.graph import Graph
from pfpcli.graph.propagate import propagate
from pfpcli.graph.quiet import quiet
from pfpcli.graph.rearrangements import gather_shuffles, leave_batch

#: The most calls with sizes among their arguments that are traced with free sizes; with more, tracing takes minutes.
_MOST_SIZED_CALLS = 64
#: The largest difference between a network and its graph on an image of another size, relative to the largest output.
_SAME = 1e-3


def trace(module: nn.Module, example: Sequence[Tensor], original: nn.Module | None = None) -> Graph:
    """Trace a module over example inputs, with a free batch size, height and width where the module allows them.

    Args:
        module: in eval mode; it is left unchanged.
        example: the inputs, each float[B, ...]; with B = 1 the graph takes only batches of one sample.
        original: the network that `module` was recorded from, if `module` is a recording. A recording computes for one
            image size only, so the original tells whether the network takes images of other sizes.

    Raises:
        TraceError: `torch.export` cannot follow the forward pass.
    """
    example = tuple(example)
    single = tuple(x[:1] for x in example)
    try:
        example, program = _with_free_batch(module, example) or _with_fixed_batch(module, example)
        graph = from_program(program, example)
    except (TraceError, InputError) as error:
        try:
            part, stops = data_independent_part(module, single)
        except Exception:
            raise error from None
        return replace(from_program(export_program(part, single), single), stops=tuple(stops))
    return _with_free_sizes(module, original or module, graph) if graph.dynamic else graph


def _with_free_batch(
    module: nn.Module, example: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], ExportedProgram] | None:
    """Export with a free batch; return the inputs and the program, None if the module fixes the batch."""
    if any(len(x) == 1 for x in example):  # `torch.export` takes a size of one for a constant
        return None
    program = export_program(module, example, free_dims(example, spatial=False))
    return (example, program) if _has_free_batch(program) else None


def _with_fixed_batch(module: nn.Module, example: tuple[Tensor, ...]) -> tuple[tuple[Tensor, ...], ExportedProgram]:
    """Export with one sample if the module takes one, otherwise with all; return the inputs and the program."""
    single = tuple(x[:1] for x in example)
    try:
        return single, export_program(module, single)
    except (TraceError, InputError):
        return example, export_program(module, example)


def _with_free_sizes(module: nn.Module, original: nn.Module, graph: Graph) -> Graph:
    """Return a graph that takes images of other sizes if the network does, otherwise the given graph."""
    tried = []
    for inputs in other_sizes(graph.example):
        try:
            with torch.no_grad(), quiet():
                tried.append((inputs, tree_leaves(original(*inputs))))
        except Exception:  # the network takes no image of this size
            if not tried:
                return graph
    if all(_gives(graph, *each) for each in tried):  # no size in the graph depends on the size of the image
        return replace(graph, spatial=True)
    sized = sum(any(isinstance(arg, (list, tuple)) for arg in node.args[1:]) for node in graph.nodes)
    if module is not original or sized > _MOST_SIZED_CALLS:
        return graph
    try:
        free = from_program(
            export_program(module, graph.example, free_dims(graph.example, spatial=True)), graph.example
        )
    except (TraceError, InputError):
        return graph
    return replace(free, spatial=True) if free.dynamic and all(_gives(free, *each) for each in tried) else graph


def _gives(graph: Graph, inputs: Sequence[Tensor], expected: list[Any]) -> bool:
    """Whether a graph computes the expected values of these inputs."""
    try:
        with torch.no_grad():
            found = tree_leaves(graph(*inputs))
    except Exception:
        return False
    return largest_difference(found, expected) <= _SAME


def other_sizes(inputs: Sequence[Tensor]) -> Iterator[tuple[Tensor, ...]]:
    """Yield one sample of each input, tiled or cropped to images of other heights and widths.

    The first size is a little larger and keeps what a network with strides may ask for, a multiple of 32 more. Others
    are odd, smaller, about twice as large, and at least 256 by 320; of these, none has more than `_LARGEST` pixels.
    """
    sides = [x.shape[2:] for x in inputs if x.dim() == 4]
    for i, resized in enumerate(_SIZES):
        if i == 0 or all(height * width <= _LARGEST for height, width in (resized(*each) for each in sides)):
            yield tuple(_tiled(x[:1], *resized(*x.shape[2:])) if x.dim() == 4 else x[:1] for x in inputs)


def _tiled(x: Tensor, height: int, width: int) -> Tensor:
    return x.repeat(1, 1, -(-height // x.shape[2]), -(-width // x.shape[3]))[:, :, :height, :width].clone()


#: (height, width) -> another size to try.
_SIZES: tuple[Callable[[int, int], tuple[int, int]], ...] = (
    lambda height, width: (height + 32, width + 64),
    lambda height, width: (3 * height // 4 | 1, 5 * width // 8 | 1),
    lambda height, width: (2 * height + 3, width + 7),
    lambda height, width: (max(2 * height, 256), max(2 * width, 320)),
)
#: The most pixels of an image of another size: each size costs a few forward passes.
_LARGEST = 400_000


def free_dims(example: Sequence[Tensor], *, spatial: bool) -> list[tuple[int, ...]]:
    """Return the dimensions of each input that may stay free: the batch, and the height and width of images."""
    return [(0, 2, 3) if spatial and x.dim() == 4 else (0,) for x in example]


def from_program(program: ExportedProgram, example: Sequence[Tensor]) -> Graph:
    """Return the graph of an exported program.

    Args:
        program: from `torch.export.export` or `torch.export.load`.
        example: inputs, each float[B, ...].

    Raises:
        TraceError: the program does not accept these inputs.
    """
    module = program.module(check_guards=False)
    inline_regions(module)
    if not functionalise(module.graph):
        # Writes through views need alias analysis: torch has one, but traces a second time for it.
        module = program.run_decompositions({}).module(check_guards=False)
        inline_regions(module)
    drop_assertions(module.graph)
    module.graph.eliminate_dead_code()
    _note_free_sizes(module.graph)
    module = _plain(module)
    try:
        with quiet():
            propagate(module, example)
    except Exception as error:
        raise _cannot_follow(example, error) from error
    rewritten = [rewrite(module) for rewrite in (fold_constants, leave_batch, gather_shuffles)]
    if any(rewritten):
        propagate(module, example)
    dims = open_dims(program)
    spatial = all({2, 3} <= set(free) for x, free in zip(example, dims, strict=True) if x.dim() == 4)
    dynamic = all(0 in free for free in dims)
    graph = Graph(_plain(module), tuple(example), dynamic, spatial and any(x.dim() == 4 for x in example))
    graph.check()
    return graph


def _plain(module: fx.GraphModule) -> fx.GraphModule:
    """Return the same graph with only the tensors that it uses, and without the exporter's hooks on the inputs."""
    return fx.GraphModule(module, module.graph)


def export_program(
    module: nn.Module, example: tuple[Tensor, ...], free: Sequence[tuple[int, ...]] = ()
) -> ExportedProgram:
    """Export a module.

    Args:
        module: in eval mode.
        example: the inputs.
        free: the dimensions of each input that stay free where the module allows it; by default all are fixed.

    Raises:
        TraceError: `torch.export` cannot follow the forward pass.
        InputError: the forward pass of a network read from a file raised it.
    """
    shapes = ShapesCollection()
    for x, dims in zip(example, free, strict=False):
        shapes[x] = dict.fromkeys(dims, Dim.AUTO)
    try:
        with quiet():
            return export(module, example, dynamic_shapes=shapes if free else None, strict=False)  # type: ignore[arg-type]
    except InputError:
        raise
    except Exception as error:
        raise _cannot_follow(example, error) from error


def _cannot_follow(example: Sequence[Tensor], error: Exception) -> TraceError:
    shape = ", ".join("×".join(map(str, x.shape[1:])) for x in example)
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return TraceError(
        f"torch.export cannot follow the forward pass over an input of shape {shape}: {reason.strip()}",
        "check the input shape (--input-size C,H,W); control flow that depends on values has to be rewritten",
    )


def _has_free_batch(program: ExportedProgram) -> bool:
    return all(0 in dims for dims in open_dims(program))


def open_dims(program: ExportedProgram) -> list[list[int]]:
    """Return the dimensions of each input that a program leaves free."""
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    return [free_sizes(value) if isinstance(value, Tensor) else [] for value in values]


def free_sizes(value: Tensor) -> list[int]:
    """Return the dimensions that the exporter left free: their sizes depend on the batch."""
    sizes = enumerate(value.shape)
    return [dim for dim, size in sizes if not isinstance(size, int) and size.node.maybe_as_int() is None]


def _note_free_sizes(graph: fx.Graph) -> None:
    """Set `meta["free"]` of every node to the `free_sizes` of each of its tensors, before `propagate` fixes them."""
    for node in graph.nodes:
        value = node.meta.get("val")
        parts = value if isinstance(value, (tuple, list)) else [value]
        node.meta["free"] = [free_sizes(part) if isinstance(part, Tensor) else [] for part in parts]

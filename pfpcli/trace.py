"""Trace: a module of any kind becomes one functional ATen graph.

In: a `load.Source` and an example batch. Out: a `Graph` whose nodes are placeholders, `get_attr` (parameters, buffers,
constants under their dotted names), ATen calls that write to nothing, and the output. Every node carries
`meta["val"]`: a fake tensor with concrete sizes, or the number itself where the graph computes one.

Refuses (TraceError) what `torch.export` cannot follow.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.fx.node import Node

from pfpcli.canonical import drop_assertions, fold_constants, functionalise, gather_shuffles, inline_regions
from pfpcli.errors import TraceError
from pfpcli.graph import Graph
from pfpcli.static_part import static_part


def trace(module: nn.Module, example: Sequence[Tensor]) -> Graph:
    """Trace a module over example inputs, with a free batch size where the module allows one.

    Args:
        module: in eval mode; it is left unchanged.
        example: the inputs, each float[B, ...] with B >= 2 so that the batch is not taken for a constant.

    Raises:
        TraceError: `torch.export` cannot follow the forward pass.
    """
    example = tuple(example)
    single = tuple(x[:1] for x in example)
    try:
        program = export_program(module, example, dynamic=True)
    except TraceError as error:
        try:
            with quiet():
                part, stops = static_part(module, single)
        except Exception:
            raise error from None
        return replace(from_program(export_program(part, single, dynamic=False), single), stops=tuple(stops))
    if not _has_free_batch(program):
        example = single
        program = export_program(module, example, dynamic=False)
    return from_program(program, example)


def from_program(program: ExportedProgram, example: Sequence[Tensor]) -> Graph:
    """The graph of an exported program.

    Args:
        program: as `torch.export.export` or `torch.export.load` returns it.
        example: inputs, each float[B, ...].

    Raises:
        TraceError: it does not accept them.
    """
    module = program.module(check_guards=False)
    inline_regions(module)
    if not functionalise(module.graph):
        # Writes through views need alias analysis; torch has it, at the price of a second tracing.
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
    fold_constants(module)
    if gather_shuffles(module):
        propagate(module, example)
    return Graph(_plain(module), tuple(example), _has_free_batch(program))


def _plain(module: fx.GraphModule) -> fx.GraphModule:
    """The same graph over just the tensors it uses, without the exporter's hooks on the inputs."""
    return fx.GraphModule(module, module.graph)


def propagate(module: fx.GraphModule, example: Sequence[Tensor]) -> None:
    """Set `meta["val"]` of every node to a fake tensor of concrete sizes, or to the number it computes."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = [mode.from_tensor(x, static_shapes=True) for x in example]
    with mode, torch.no_grad():
        _Sizes(module, mode).run(*fakes, enable_io_processing=False)


class _Sizes(fx.Interpreter):
    """Runs a graph on fake tensors and keeps what each node returned."""

    def __init__(self, module: fx.GraphModule, mode: FakeTensorMode) -> None:
        super().__init__(module)
        self._mode = mode
        self._seen: dict[int, Tensor] = {}

    def get_attr(self, target: Any, args: Any, kwargs: Any) -> Any:
        """A fake of the tensor, one per tensor."""
        value = super().get_attr(target, args, kwargs)
        if not isinstance(value, Tensor):
            return value
        if id(value) not in self._seen:
            self._seen[id(value)] = self._mode.from_tensor(value.detach(), static_shapes=True)
        return self._seen[id(value)]

    def run_node(self, n: Node) -> Any:
        """Run one node and remember its value."""
        value = super().run_node(n)
        n.meta["val"] = value
        return value


def export_program(module: nn.Module, example: tuple[Tensor, ...], *, dynamic: bool) -> ExportedProgram:
    """Export a module.

    Args:
        module: in eval mode.
        example: the inputs.
        dynamic: leave the batch size free as far as the module allows it.

    Raises:
        TraceError: `torch.export` cannot follow the forward pass.
    """
    shapes = ShapesCollection()
    for x in example if dynamic else ():
        shapes[x] = {0: Dim.AUTO}
    try:
        with quiet():
            return export(module, example, dynamic_shapes=shapes if dynamic else None, strict=False)  # type: ignore[arg-type]
    except Exception as error:
        raise _cannot_follow(example, error) from error


def _cannot_follow(example: Sequence[Tensor], error: Exception) -> TraceError:
    shape = ", ".join("×".join(map(str, x.shape[1:])) for x in example)
    reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return TraceError(
        f"torch.export cannot follow the forward pass over an input of shape {shape}: {reason.strip()}",
        "check the input shape (--input-size C,H,W); control flow that depends on values has to be rewritten",
    )


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """The exporters talk on every channel there is; what matters is raised, or checked afterwards."""
    level = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        said = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def _has_free_batch(program: ExportedProgram) -> bool:
    inputs = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    return all(isinstance(value, Tensor) and 0 in free_sizes(value) for value in values)


def free_sizes(value: Tensor) -> list[int]:
    """The dimensions whose size the exporter left open: they depend on the batch."""
    sizes = enumerate(value.shape)
    return [dim for dim, size in sizes if not isinstance(size, int) and size.node.maybe_as_int() is None]


def _note_free_sizes(graph: fx.Graph) -> None:
    """Keep what `propagate` overwrites: `meta["free"]`, for each tensor of a node's value what `free_sizes` says."""
    for node in graph.nodes:
        value = node.meta.get("val")
        parts = value if isinstance(value, (tuple, list)) else [value]
        node.meta["free"] = [free_sizes(part) if isinstance(part, Tensor) else [] for part in parts]

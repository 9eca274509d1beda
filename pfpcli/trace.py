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
import operator
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram, ShapesCollection, export
from torch.fx.node import Node

from pfpcli.errors import TraceError

#: ATen calls that only check something; the graph is traced once, and what they check is checked by then.
_ASSERTIONS = ("aten._assert_async", "aten._assert_scalar", "aten._assert_tensor_metadata", "aten.sym_constrain_range")


@dataclass(frozen=True)
class Graph:
    """One network as a functional ATen graph.

    Attributes:
        module: the graph and its tensors; calling it runs the network.
        example: the inputs it was traced with, each float[B, ...].
        dynamic: whether the batch size is free; otherwise it is the example's.
    """

    module: fx.GraphModule
    example: tuple[Tensor, ...]
    dynamic: bool

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

    def tensor(self, node: Node) -> Tensor:
        """The parameter, buffer or constant a `get_attr` node stands for."""
        tensor: Tensor = fetch(self.module, str(node.target))
        return tensor


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
    return node.op == "get_attr" or (node.op == "call_function" and all(map(is_constant, node.all_input_nodes)))


def trace(module: nn.Module, example: Sequence[Tensor]) -> Graph:
    """Trace a module over example inputs, with a free batch size where the module allows one.

    Args:
        module: in eval mode; it is left unchanged.
        example: the inputs, each float[B, ...] with B >= 2 so that the batch is not taken for a constant.

    Raises:
        TraceError: `torch.export` cannot follow the forward pass.
    """
    example = tuple(example)
    program = export_program(module, example, dynamic=True)
    if not _has_free_batch(program):
        example = tuple(x[:1] for x in example)
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
    if not _functionalise(module.graph):
        # Writes through views need alias analysis; torch has it, at the price of a second tracing.
        module = program.run_decompositions({}).module(check_guards=False)
    _drop_assertions(module.graph)
    module.graph.eliminate_dead_code()
    _note_free_sizes(module.graph)
    module = _plain(module)
    try:
        with quiet():
            propagate(module, example)
    except Exception as error:
        raise _cannot_follow(example, error) from error
    _fold_constants(module)
    if _gather_shuffles(module):
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
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
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


def _drop_assertions(graph: fx.Graph) -> None:
    for node in reversed(list(graph.nodes)):
        if node.op == "call_function" and str(node.target).startswith(_ASSERTIONS) and not node.users:
            graph.erase_node(node)


def _functionalise(graph: fx.Graph) -> bool:
    """Replace calls that write to their first argument by calls that return the result; False if that is not enough."""
    position = {node: i for i, node in enumerate(graph.nodes)}
    for node in list(graph.nodes):
        schema = getattr(node.target, "_schema", None)
        if node.op != "call_function" or schema is None or not schema.is_mutable:
            continue
        functional = _functional(node.target)
        written = node.args[0] if node.args else None
        if functional is None or not isinstance(written, Node) or _seen_through_views(written, node, position):
            return False
        node.target = functional
        after = {user for user in written.users if position[user] > position[node]}
        written.replace_all_uses_with(node, after.__contains__)
    return True


def _functional(target: Any) -> Any:
    """The overload that returns what an in-place overload writes, e.g. aten.relu.default for aten.relu_.default."""
    name, _, overload = str(target).removeprefix("aten.").partition(".")
    writes = [argument.alias_info.is_write for argument in target._schema.arguments if argument.alias_info]
    packet = getattr(torch.ops.aten, name[:-1], None) if name.endswith("_") and writes == [True] else None
    return getattr(packet, overload, None)


def _seen_through_views(written: Node, writer: Node, position: dict[Node, int]) -> bool:
    """Whether a write would be read later through another name of the same memory."""
    names, queue = {written}, [written]
    while queue:
        node = queue.pop()
        linked = [user for user in node.users if _is_view_of(user, node)]
        if (
            node.op == "call_function"
            and node.args
            and isinstance(node.args[0], Node)
            and _is_view_of(node, node.args[0])
        ):
            linked.append(node.args[0])
        queue += [other for other in linked if other not in names]
        names.update(linked)
    others = names - {written}
    return any(position.get(user, -1) > position[writer] for name in others for user in name.users) or any(
        name.op in ("placeholder", "get_attr") for name in names
    )


def _is_view_of(node: Node, base: Node) -> bool:
    if node.target is operator.getitem:
        return node.args[0] is base
    schema = getattr(node.target, "_schema", None)
    if schema is None or not node.args or node.args[0] is not base or not schema.arguments:
        return False
    alias = schema.arguments[0].alias_info
    # reshape, flatten and contiguous may return a view although their schema does not say so
    return (alias is not None and not alias.is_write) or str(node.target) in _MAYBE_VIEWS


_MAYBE_VIEWS = {
    "aten.chunk.default",
    "aten.contiguous.default",
    "aten.flatten.using_ints",
    "aten.reshape.default",
    "aten.to.dtype",
}


def _fold_constants(module: fx.GraphModule) -> None:
    """Compute what depends on parameters and constants only (weight standardisation, position tables), once.

    Views of a parameter stay: they cost nothing, and folding them would count the parameter twice.
    """
    graph = module.graph
    constant: set[Node] = set()
    computed: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node):
            constant.add(node)
        elif node.op == "call_function" and _is_pure(node) and all(i in constant for i in node.all_input_nodes):
            constant.add(node)
            sources = node.all_input_nodes
            if not (sources and _is_view_of(node, sources[0])) or any(i in computed for i in sources):
                computed.add(node)
    values: dict[Node, Any] = {}
    for node in list(graph.nodes):
        if node in computed and is_tensor(node) and any(user not in computed for user in node.users):
            _replace_by_value(module, node, values)
    graph.eliminate_dead_code()


def _is_pure(node: Node) -> bool:
    tags = getattr(node.target, "tags", None)
    return (tags is not None and torch.Tag.nondeterministic_seeded not in tags) or node.target is operator.getitem


def _replace_by_value(module: fx.GraphModule, node: Node, values: dict[Node, Any]) -> None:
    with torch.no_grad():
        value = _evaluate(module, node, values).detach().clone()
    trained = any(isinstance(fetch(module, str(n.target)), nn.Parameter) for n in _sources(node))
    path = f"{owner(node)}.{node.name}" if _has_module(module, owner(node)) else node.name
    add_tensor(module, path, nn.Parameter(value) if trained and value.is_floating_point() else value)
    with module.graph.inserting_before(node):
        attribute = module.graph.create_node("get_attr", path, name=node.name)
    attribute.meta = {"val": node.meta["val"]}
    node.replace_all_uses_with(attribute)


def _evaluate(module: fx.GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    if node not in values:
        if node.op == "get_attr":
            values[node] = fetch(module, str(node.target))
        else:
            args, kwargs = fx.map_arg((node.args, node.kwargs), lambda n: _evaluate(module, n, values))
            values[node] = node.target(*args, **kwargs)  # type: ignore[operator]
    return values[node]


def _sources(node: Node) -> Iterator[Node]:
    for argument in node.all_input_nodes:
        if argument.op == "get_attr":
            yield argument
        else:
            yield from _sources(argument)


#: What a channel shuffle is written with.
_SHUFFLING = {
    "aten.clone.default",
    "aten.contiguous.default",
    "aten.flatten.using_ints",
    "aten.permute.default",
    "aten.reshape.default",
    "aten.transpose.int",
    "aten.unflatten.int",
    "aten.view.default",
}


def _gather_shuffles(module: fx.GraphModule) -> bool:
    """Replace chains of views and transposes that only reorder one dimension by one index_select.

    Written as views, a channel shuffle ties channels to each other through their places; as a list of positions it can
    lose any of them.
    """
    graph, found = module.graph, False
    for first in list(graph.nodes):
        chain = _shuffle_from(first)
        if not chain:
            continue
        x, last = first.args[0], chain[-1]
        dim, order = _reordering(chain, x.meta["val"].shape) or (0, None)
        if order is None:
            continue
        path = f"{owner(last)}.{last.name}_order" if _has_module(module, owner(last)) else f"{last.name}_order"
        add_tensor(module, path, order)
        with graph.inserting_before(last):
            positions = graph.get_attr(path)
            made = graph.call_function(torch.ops.aten.index_select.default, (x, dim, positions))
        made.meta = dict(last.meta)
        last.replace_all_uses_with(made)
        found = True
    graph.eliminate_dead_code()
    return found


def _shuffle_from(first: Node) -> list[Node]:
    """The shortest chain of movements from a node on that ends with the shape it began with; empty if there is none."""
    chain: list[Node] = []
    node = first
    while node.op == "call_function" and str(node.target) in _SHUFFLING and is_tensor(node):
        chain.append(node)
        if len(chain) > 2 and node.meta["val"].shape == first.all_input_nodes[0].meta["val"].shape:
            return chain
        if len(node.users) != 1:
            return []
        node = next(iter(node.users))
        if not node.args or node.args[0] is not chain[-1]:
            return []
    return []


def _reordering(chain: list[Node], shape: Sequence[int]) -> tuple[int, Tensor] | None:
    """The one dimension a chain of movements reorders, and how: int64[size]; None if it does anything else."""
    found = None
    for dim, size in enumerate(shape):
        sizes = [1] * len(shape)
        sizes[dim] = -1
        places = torch.arange(size).view(sizes).expand(*shape)
        for node in chain:
            args, kwargs = fx.map_arg((node.args[1:], node.kwargs), lambda n: n.meta["val"])
            places = places.reshape(*args) if "view" in str(node.target) else node.target(places, *args, **kwargs)  # type: ignore
        order = places.movedim(dim, -1).reshape(-1, size)
        if not bool((order == order[0]).all()):
            return None
        if not bool((order[0] == torch.arange(size)).all()):
            if found is not None:
                return None
            found = (dim, order[0].clone())
    return found


def _has_module(module: nn.Module, path: str) -> bool:
    try:
        return isinstance(fetch(module, path), nn.Module)
    except AttributeError:
        return False


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

"""From TorchScript to an fx graph of ATen ops that `torch.export` accepts.

The script is run once under `make_fx` with real numbers, and every op it calls is written down. Three things are lost
on that way and put back here:

- names: parameters arrive as `_tensor_constant7`; they are found again by their memory and get their dotted names;
- the batch: sizes arrive as numbers (`view(x, [2, -1])`). The script is run with B and with B + 1 rows; a number that
  is k·B in one graph and k·(B + 1) in the other becomes k times the rows of the first input;
- convolutions: `aten._convolution` becomes conv1d/2d/3d or conv_transpose1d/2d/3d, which rules know.

Branches are followed as these inputs lead; a script that branches on the numbers themselves keeps one branch. Where
the batch cannot be made free (the two graphs differ in more than such numbers, or the result fails on B + 2 rows),
the graph for exactly B rows is returned.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_aggregate
from torch.jit import optimized_execution  # type: ignore[attr-defined]
from torch.utils._pytree import tree_leaves

from pfpcli.errors import TraceError

aten = torch.ops.aten

# Largest difference from the script's output, relative to its largest number: the ops are the same, but oneDNN may sum
# in another order for another batch.
SAME = 1e-5

# By number of spatial dims.
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)

# Where an op says that it trains, by position of the argument.
TRAINS = {aten.batch_norm.default: 5, aten.dropout.default: 2, aten.dropout_.default: 2}

# What turns a tensor into a Python number or truth value.
READERS = (aten.item.default, aten._local_scalar_dense.default, aten.is_nonzero.default)


@dataclass(frozen=True)
class _Rows:
    """A number in a graph that is `times` the number of rows of the first input."""

    times: int


# New arguments of a node, where they differ from what was traced: (args, kwargs).
_Arguments = dict[fx.Node, tuple[Any, Any]]


def script_to_fx(script: torch.jit.ScriptModule, example: tuple[Tensor, ...]) -> fx.GraphModule:
    """Trace a script with real tensors.

    Args:
        script: traced or scripted module in eval mode; left unchanged, its parameters are shared with the result.
        example: inputs of shape (B, …); the rows of those whose first dim is B are repeated for other batches.

    Returns:
        A graph of ATen ops with the script's argument names, its dotted parameter and buffer names and its outputs,
        for any number of rows where possible. Tensors that the script holds under no name are buffers `constant_N`.

    Raises:
        TraceError: the script cannot be run on `example`, or is in training mode.
    """
    try:
        module = _with_free_batch(script, example)
    except TraceError:  # a script of one batch size only; or one that cannot be run at all, which the next line tells
        module = None
    return _rebuilt(script, _traced(script, example), {}) if module is None else module


def _with_free_batch(script: torch.jit.ScriptModule, example: tuple[Tensor, ...]) -> fx.GraphModule | None:
    batch = example[0].shape[0]
    rows = max(batch, 2)  # a single row would take part in broadcasting and squeezing
    traced = _traced(script, _with_rows(example, batch, rows))
    arguments = _free_batch(traced, _traced(script, _with_rows(example, batch, rows + 1)), rows)
    if arguments is None:
        return None
    module = _rebuilt(script, traced, arguments)
    return module if _agrees(module, script, _with_rows(example, batch, rows + 2)) else None


def training_op(graph: fx.Graph) -> str:
    """Name of an op that uses batch statistics or drops numbers at random; "" if there is none.

    Such ops are fixed when a graph is made: `eval()` on it changes nothing.
    """
    nodes = [node for op in TRAINS for node in graph.find_nodes(op="call_function", target=op)]
    return next((str(node.target) for node in nodes if node.args[TRAINS[node.target]] is True), "")


def _traced(script: torch.jit.ScriptModule, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    # Without the optimiser, which would fuse ops into ones that cannot be seen.
    with torch.no_grad(), optimized_execution(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            script(*_copies(inputs))  # errors while tracing come without their reason
            # Traced scripts compute sizes in 0-d tensors and read them back, which make_fx takes for data.
            tracer = make_fx(lambda *args: script(*args), pre_dispatch=True, _error_on_data_dependent_ops=False)
            module = tracer(*_copies(inputs))
        except Exception as error:
            shapes = ", ".join(str(tuple(value.shape)) for value in inputs)
            lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
            raise TraceError(
                f"{script.original_name}: running the script on {shapes} failed: {lines[-1]}",
                "pass the shape of one input with --input-size, e.g. `--input-size 3,224,224`",
            ) from error
    if op := training_op(module.graph):
        raise TraceError(
            f"{script.original_name}: was traced in training mode ({op} trains)",
            "call model.eval() before torch.jit.trace",
        )
    if op := _reading_op(module.graph):
        raise TraceError(
            f"{script.original_name}: reads numbers out of its tensors ({op}), so its graph depends on the input",
            "replace the branch or loop over data by tensor operations",
        )
    _drop_unused(module.graph)
    return module


def _reading_op(graph: fx.Graph) -> str:
    """Name of an op that turns data into a Python number; "" if there is none or only sizes are read."""
    from_data: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not from_data.isdisjoint(node.all_input_nodes):
            from_data.add(node)
    return next((str(node.target) for node in graph.nodes if node.target in READERS and node in from_data), "")


def _drop_unused(graph: fx.Graph) -> None:
    """Erase what computed the sizes that are numbers now. `Graph.eliminate_dead_code` is not asked what writes."""
    for node in reversed(list(graph.nodes)):
        writes = isinstance(node.target, OpOverload) and node.target._schema.is_mutable
        if node.op in ("get_attr", "call_function") and not node.users and not writes:
            graph.erase_node(node)


def _with_rows(example: tuple[Tensor, ...], batch: int, rows: int) -> tuple[Tensor, ...]:
    """The example with `rows` instead of `batch` rows, the first ones again where there are more."""
    pick = torch.arange(rows) % batch
    return tuple(value[pick] if value.dim() and value.shape[0] == batch else value for value in example)


def _copies(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """For scripts that write to their inputs."""
    return [value.clone() for value in inputs]


def _free_batch(traced: fx.GraphModule, other: fx.GraphModule, rows: int) -> _Arguments | None:
    """The arguments that follow the batch, from graphs of `rows` and `rows + 1`; None if the graphs do not match."""
    pairs = list(zip(traced.graph.nodes, other.graph.nodes, strict=False))
    twins = dict(pairs)
    same_ops = all((a.op, a.target) == (b.op, b.target) for a, b in pairs)
    if not same_ops or len(traced.graph.nodes) != len(other.graph.nodes):
        return None
    arguments: _Arguments = {}
    for node, twin in pairs:
        theirs = _leaves((twin.args, twin.kwargs))
        if len(theirs) != len(_leaves((node.args, node.kwargs))):
            return None
        merged = [_merged(a, b, twins, rows) for a, b in zip(_leaves((node.args, node.kwargs)), theirs, strict=True)]
        if any(value is _DIFFERENT for value in merged):
            return None
        if any(isinstance(value, _Rows) for value in merged):
            arguments[node] = _refilled((node.args, node.kwargs), merged)
    return arguments


_DIFFERENT = object()


def _merged(ours: Any, theirs: Any, twins: dict[fx.Node, fx.Node], rows: int) -> Any:
    """One value for both graphs: the value itself, `_Rows`, or `_DIFFERENT`."""
    if isinstance(ours, fx.Node):
        return ours if twins.get(ours) is theirs else _DIFFERENT
    if type(ours) is not type(theirs):
        return _DIFFERENT
    if ours == theirs:
        return ours
    times, rest = divmod(ours, rows) if type(ours) is int else (0, 1)
    return _Rows(times) if rest == 0 and theirs == times * (rows + 1) else _DIFFERENT


def _leaves(arguments: Any) -> list[Any]:
    leaves: list[Any] = []
    map_aggregate(arguments, leaves.append)
    return leaves


def _refilled(arguments: Any, leaves: list[Any]) -> Any:
    following = iter(leaves)
    return map_aggregate(arguments, lambda _: next(following))


def _rebuilt(script: torch.jit.ScriptModule, traced: fx.GraphModule, arguments: _Arguments) -> fx.GraphModule:
    """A new graph with names, a free batch and plain convolutions."""
    graph, root = fx.Graph(), nn.Module()
    copies: dict[fx.Node, Any] = {}
    names, known = _tensor_names(script), set[str]()
    parameters = {name for name, _ in script.named_parameters()}
    placeholders = traced.graph.find_nodes(op="placeholder")
    for node, argument in zip(placeholders, _argument_names(script), strict=False):
        copies[node] = graph.placeholder(argument)
    sizes = _sizes(graph, copies[placeholders[0]], arguments)

    def copied(value: Any) -> Any:
        if isinstance(value, _Rows):
            return sizes[value.times]
        return copies[value] if isinstance(value, fx.Node) else value

    for node in traced.graph.nodes:
        if node.op == "get_attr":
            tensor = getattr(traced, node.target)
            name = names.get(_identity(tensor), f"constant_{node.target.removeprefix('_tensor_constant')}")
            if name not in known:
                _register(root, name, tensor, trainable=name in parameters)
                known.add(name)
            copies[node] = graph.get_attr(name)
        elif node.op == "output":
            graph.output(map_aggregate(node.args[0], copied))
        elif node.op == "call_function":
            args, kwargs = map_aggregate(arguments.get(node, (node.args, node.kwargs)), copied)
            copies[node] = args[0] if node.target is aten.detach.default else _called(graph, node, args, kwargs)
    module = fx.GraphModule(root, graph, script.original_name)
    graph.lint()
    return module.eval()


def _called(graph: fx.Graph, node: fx.Node, args: Any, kwargs: Any) -> Any:
    if isinstance(node.target, type):  # a named tuple, whose class exists in the script only
        return tuple(args)
    if not isinstance(node.target, OpOverload) or node.target.overloadpacket is not aten._convolution:
        return graph.create_node("call_function", node.target, tuple(args), dict(kwargs))
    data, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    dims = node.meta["val"].dim() - 2
    if transposed:
        order = (data, weight, bias, stride, padding, output_padding, groups, dilation)
        return graph.call_function(TRANSPOSED[dims - 1], order)
    return graph.call_function(CONVOLUTIONS[dims - 1], (data, weight, bias, stride, padding, dilation, groups))


def _sizes(graph: fx.Graph, first: fx.Node, arguments: _Arguments) -> dict[int, fx.Node]:
    """For every multiple of the rows that is needed, the node that computes it."""
    leaves = [leaf for changed in arguments.values() for leaf in _leaves(changed)]
    needed = sorted({leaf.times for leaf in leaves if isinstance(leaf, _Rows)})
    if not needed:
        return {}
    rows = graph.call_function(aten.sym_size.int, (first, 0))
    return {k: rows if k == 1 else graph.call_function(operator.mul, (rows, k)) for k in needed}


def _argument_names(script: torch.jit.ScriptModule) -> list[str]:
    """Names of forward's arguments, without `self`."""
    schema = script.forward.schema  # type: ignore[attr-defined]
    return [argument.name.partition(".")[0] for argument in schema.arguments[1:]]


def _tensor_names(script: torch.jit.ScriptModule) -> dict[Any, str]:
    tensors = [*script.named_parameters(), *script.named_buffers()]
    return {_identity(tensor): name for name, tensor in reversed(tensors)}  # so that the first of several names stays


def _identity(tensor: Tensor) -> Any:
    """The same for every handle on the same numbers in memory."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _register(root: nn.Module, name: str, tensor: Tensor, trainable: bool) -> None:
    """Put a tensor under a dotted name, as a parameter or a buffer."""
    *path, last = name.split(".")
    for part in path:
        if not hasattr(root, part):
            root.add_module(part, nn.Module())
        root = root.get_submodule(part)
    if trainable:
        root.register_parameter(last, nn.Parameter(tensor.detach(), requires_grad=tensor.requires_grad))
    else:
        root.register_buffer(last, tensor.detach())


def _agrees(module: Callable[..., Any], script: torch.jit.ScriptModule, inputs: tuple[Tensor, ...]) -> bool:
    """Whether both return the same on inputs that were not traced."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pairs = list(zip(tree_leaves(module(*_copies(inputs))), tree_leaves(script(*_copies(inputs))), strict=True))
        except Exception:
            return False  # a size that should have followed the batch did not
    return all(_same(ours, theirs) for ours, theirs in pairs)


def _same(ours: Any, theirs: Any) -> bool:
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return bool(ours == theirs)
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    if not theirs.is_floating_point() or not theirs.numel():
        return torch.equal(ours, theirs)
    return torch.allclose(ours, theirs, rtol=0, atol=SAME * theirs.abs().max().item())

"""From TorchScript to an fx graph of ATen ops that `torch.export` accepts.

`make_fx` runs the script once on real tensors and records every op. The recorded graph lacks three things, which are
added here:

- names: parameters arrive as `_tensor_constant7`; their memory identifies them, and they get their dotted names back;
- a free batch size: sizes arrive as numbers (`view(x, [2, -1])`); `row_counts` finds the numbers that follow the batch;
- plain convolutions: `aten._convolution` becomes conv1d/2d/3d or conv_transpose1d/2d/3d, which have rules.

A branch of the script that depends on sizes is traced as these inputs take it; a script that depends on the values of
its tensors is refused. If the batch size cannot be made free (the graphs of two batch sizes differ in more than such
numbers, or the result computes something else for a third batch size), the graph has a fixed batch size.
"""

from __future__ import annotations

import operator
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_aggregate
from torch.jit import optimized_execution  # type: ignore[attr-defined]
from torch.utils._pytree import tree_leaves

from pfpcli.errors import TraceError
from pfpcli.graph.difference import largest_difference
from pfpcli.graph.inference import training_op
from pfpcli.models.row_counts import Arguments, Rows, find_row_counts, leaves

aten = torch.ops.aten

# The largest accepted difference of graph and script, relative to the largest absolute number of an output.
# The ops are the same, but oneDNN may sum in another order for another batch size.
SAME = 1e-5

# Index: number of spatial dimensions - 1.
CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)
TRANSPOSED = (aten.conv_transpose1d.default, aten.conv_transpose2d.input, aten.conv_transpose3d.input)

# Ops that turn a tensor into a Python number or truth value.
READERS = (aten.item.default, aten._local_scalar_dense.default, aten.is_nonzero.default)


def script_to_fx(script: torch.jit.ScriptModule, example: tuple[Tensor, ...]) -> fx.GraphModule:
    """Trace a script with real tensors.

    Args:
        script: a traced or scripted module in eval mode; it stays unchanged and shares its parameters with the result.
        example: float[B, ...] for each input. For other batch sizes, rows of the inputs with B rows are repeated.

    Returns:
        A graph of ATen ops with the argument names, the dotted tensor names and the outputs of the script, for any
        batch size if possible. Tensors without a name in the script become buffers `constant_N`.

    Raises:
        TraceError: the script does not run on the example, is in training mode, or depends on values of its tensors.
    """
    try:
        module = _with_free_batch(script, example)
    except TraceError:  # the script may run on this batch size only; if not, the next line raises the error
        module = None
    return _rebuilt(script, _traced(script, example), {}) if module is None else module


def _with_free_batch(script: torch.jit.ScriptModule, example: tuple[Tensor, ...]) -> fx.GraphModule | None:
    batch = example[0].shape[0]
    rows = max(batch, 2)  # a single row would be broadcast and squeezed
    traced = _traced(script, _with_rows(example, batch, rows))
    arguments = find_row_counts(traced, _traced(script, _with_rows(example, batch, rows + 1)), rows)
    if arguments is None:
        return None
    module = _rebuilt(script, traced, arguments)
    return module if _agrees(module, script, _with_rows(example, batch, rows + 2)) else None


def _traced(script: torch.jit.ScriptModule, inputs: tuple[Tensor, ...]) -> fx.GraphModule:
    # the optimiser would fuse ops into calls that make_fx cannot record
    with torch.no_grad(), optimized_execution(False), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            script(*_copies(inputs))  # an error during tracing would not say its reason
            # traced scripts compute sizes in 0-d tensors and read them back; make_fx would refuse that as data
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
    """Return the name of an op that turns values of an input into a Python number; "" if there is none."""
    from_data: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "placeholder" or not from_data.isdisjoint(node.all_input_nodes):
            from_data.add(node)
    return next((str(node.target) for node in graph.nodes if node.target in READERS and node in from_data), "")


def _drop_unused(graph: fx.Graph) -> None:
    """Erase the unused calls that computed sizes. `Graph.eliminate_dead_code` would also erase calls that write."""
    for node in reversed(list(graph.nodes)):
        writes = isinstance(node.target, OpOverload) and node.target._schema.is_mutable
        if node.op in ("get_attr", "call_function") and not node.users and not writes:
            graph.erase_node(node)


def _with_rows(example: tuple[Tensor, ...], batch: int, rows: int) -> tuple[Tensor, ...]:
    """Return the example with `rows` instead of `batch` rows; more rows repeat the first ones."""
    pick = torch.arange(rows) % batch
    return tuple(value[pick] if value.dim() and value.shape[0] == batch else value for value in example)


def _copies(inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """Copy the inputs, since a script may write to them."""
    return [value.clone() for value in inputs]


def _rebuilt(script: torch.jit.ScriptModule, traced: fx.GraphModule, arguments: Arguments) -> fx.GraphModule:
    """Return a new graph with names, row counts that follow the batch, and plain convolutions."""
    graph, root = fx.Graph(), nn.Module()
    copies: dict[fx.Node, Any] = {}
    names, known = _tensor_names(script), set[str]()
    parameters = {name for name, _ in script.named_parameters()}
    placeholders = traced.graph.find_nodes(op="placeholder")
    for node, argument in zip(placeholders, _argument_names(script), strict=False):
        copies[node] = graph.placeholder(argument)
    sizes = _sizes(graph, copies[placeholders[0]], arguments)

    def copied(value: Any) -> Any:
        if isinstance(value, Rows):
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
    if isinstance(node.target, type):  # a named tuple; its class exists only in the script
        return tuple(args)
    if not isinstance(node.target, OpOverload) or node.target.overloadpacket is not aten._convolution:
        return graph.create_node("call_function", node.target, tuple(args), dict(kwargs))
    data, weight, bias, stride, padding, dilation, transposed, output_padding, groups = args[:9]
    dims = node.meta["val"].dim() - 2
    if transposed:
        order = (data, weight, bias, stride, padding, output_padding, groups, dilation)
        return graph.call_function(TRANSPOSED[dims - 1], order)
    return graph.call_function(CONVOLUTIONS[dims - 1], (data, weight, bias, stride, padding, dilation, groups))


def _sizes(graph: fx.Graph, first: fx.Node, arguments: Arguments) -> dict[int, fx.Node]:
    """Return k -> the node that computes k times the number of rows, for every k that an argument needs."""
    values = [value for changed in arguments.values() for value in leaves(changed)]
    needed = sorted({value.times for value in values if isinstance(value, Rows)})
    if not needed:
        return {}
    rows = graph.call_function(aten.sym_size.int, (first, 0))
    return {k: rows if k == 1 else graph.call_function(operator.mul, (rows, k)) for k in needed}


def _argument_names(script: torch.jit.ScriptModule) -> list[str]:
    """Return the names of the arguments of forward, without `self`."""
    schema = script.forward.schema  # type: ignore[attr-defined]
    return [argument.name.partition(".")[0] for argument in schema.arguments[1:]]


def _tensor_names(script: torch.jit.ScriptModule) -> dict[Any, str]:
    tensors = [*script.named_parameters(), *script.named_buffers()]
    return {_identity(tensor): name for name, tensor in reversed(tensors)}  # a tensor of several names gets the first


def _identity(tensor: Tensor) -> Any:
    """Return a key that is equal for two tensors on the same memory."""
    return tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype


def _register(root: nn.Module, name: str, tensor: Tensor, trainable: bool) -> None:
    """Register a tensor under a dotted name, as a parameter or a buffer."""
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
    """Whether the graph and the script return the same on inputs of another batch size."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            pairs = list(zip(tree_leaves(module(*_copies(inputs))), tree_leaves(script(*_copies(inputs))), strict=True))
        except Exception:
            return False  # a size does not follow the batch
    return all(_same(ours, theirs) for ours, theirs in pairs)


def _same(ours: Any, theirs: Any) -> bool:
    if not (isinstance(ours, Tensor) and isinstance(theirs, Tensor)):
        return bool(ours == theirs)
    if (ours.shape, ours.dtype) != (theirs.shape, theirs.dtype):
        return False
    return largest_difference([ours], [theirs]) <= (SAME if theirs.is_floating_point() else 0)

"""The untouched nodes: the part of an ONNX graph that pfp neither computes nor changes.

Three kinds of nodes are untouched: nodes that pfp has no rule for (NonMaxSuppression, control flow, plugins), nodes
that select by the order of values (TopK, ArgMax), and every node after one of these. Many networks end in such nodes:
they select boxes or name classes. The values at the boundary, which the untouched nodes read, are the outputs of the
network for pfp: it compares, recovers and trains with them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from math import prod

import onnx

from pfpcli.onnx_io.file import is_standard, op_name, values_read

#: Ops that select by the order of values. A rounding error may change the selection, so that no value after it can be
#: compared. Those of the first row return an index only, e.g. of a class.
_INDEXING = ("ArgMax", "ArgMin")
_SELECTING = ("TopK", *_INDEXING)
#: Ops that compare or round. They are parts of activations and masks, but untouched if all of their results are only
#: read by untouched nodes.
_DECIDING = (
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Cast", "Ceil", "Floor", "Round", "Sign"),
)
#: Ops that are layers if one of their inputs is constant.
_LAYERS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
#: Ops that compute sizes.
_SIZES = ("Shape", "Size")
#: The most numbers of a constant that sizes are computed with.
_FEW = 8
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True)
class Untouched:
    """The untouched nodes of a graph.

    Attributes:
        nodes: their indices among the nodes of the graph.
        unknown: op names of the nodes without a rule, one entry for each node.
        selecting: op names of the nodes that select by the order of values. ArgMax and ArgMin are left out if no
            weights come after them: such a node only names a class by its scores, which needs no mention.
        boundary: the computed values that untouched nodes read, without sizes. The value that is computed last comes
            first, since it is most likely the main output of the network.
        reads: all values that untouched nodes read: the boundary, sizes and constants.
        parameters: count of the floats in the constants that untouched nodes read.
        choices: (value of the boundary, dimension, op name) where a node chooses one class along the dimension: an
            ArgMax, or a TopK whose results are outputs of the graph.
    """

    nodes: frozenset[int]
    unknown: tuple[str, ...]
    selecting: tuple[str, ...]
    boundary: tuple[str, ...]
    reads: frozenset[str]
    parameters: int
    choices: tuple[tuple[str, int, str], ...]

    @property
    def ops(self) -> tuple[str, ...]:
        """The ops that the computed network ends before, each once."""
        return tuple(dict.fromkeys((*self.unknown, *self.selecting)))


def find_untouched(graph: onnx.GraphProto, rules: Container[str]) -> Untouched:
    """Find the untouched nodes of a graph.

    Args:
        graph: a graph without nodes that no output needs.
        rules: op names that pfp computes.
    """
    nodes, ops = list(graph.node), [op_name(node) for node in graph.node]
    fixed, sized = _known(graph)
    unknown = {
        i for i, op in enumerate(ops) if op not in rules and op != "Constant" and not fixed.issuperset(nodes[i].output)
    }
    layers = {i for i, op in enumerate(ops) if op in _LAYERS and fixed.intersection(nodes[i].input)}
    depends = {i for i, node in enumerate(nodes) if not fixed.union(sized).issuperset(node.output)}
    selecting = {i for i in depends & _with_followers(nodes, layers) if ops[i] in _SELECTING}
    untouched = _with_followers(nodes, unknown | selecting)
    needed = _needed_directly(nodes, untouched, {each.name for each in graph.output})
    untouched = _with_followers(nodes, unknown | selecting | {i for i in depends - needed if ops[i] in _DECIDING})
    read = _values_read(nodes, untouched, fixed)
    made = [name for i, node in enumerate(nodes) if i not in untouched for name in node.output]
    count = sum(prod(each.dims) for name, each in _constants(graph) if name in read and each.data_type in _FLOATS)
    boundary = tuple(name for name in reversed(made) if name in read - fixed - sized)
    return Untouched(
        frozenset(untouched),
        tuple(ops[i] for i in sorted(unknown)),
        tuple(ops[i] for i in sorted(selecting) if count or ops[i] not in _INDEXING),
        boundary,
        frozenset(read),
        count,
        tuple(_choices(graph, boundary)),
    )


def _choices(graph: onnx.GraphProto, boundary: Container[str]) -> Iterator[tuple[str, int, str]]:
    """Yield (value, dimension, op name) of the nodes that choose a class by a value of the boundary."""
    outputs = {each.name for each in graph.output}
    for node in graph.node:
        op = op_name(node)
        # the TopK of a detector chooses places, and nodes behind it gather them
        is_choice = op == "ArgMax" or (op == "TopK" and bool(outputs.intersection(node.output)))
        if is_choice and node.input[0] in boundary:
            default = 0 if op == "ArgMax" else -1
            yield node.input[0], next((each.i for each in node.attribute if each.name == "axis"), default), op


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for each in graph.initializer:
        yield each.name, each
    for node in graph.node:
        if op_name(node) == "Constant" and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


def _known(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Return the values computed from constants alone, and the values computed from sizes and small constants."""
    fixed, sized = {each.name for each in graph.initializer}, set()
    few = {name for name, each in _constants(graph) if len(each.dims) <= 1 and prod(each.dims) <= _FEW}
    for node in graph.node:
        read = values_read(node)
        if op_name(node) == "Constant" or (read and fixed.issuperset(read) and is_standard(node)):
            fixed.update(node.output)
            if few.issuperset(read) and read:
                few.update(node.output)
        elif op_name(node) in _SIZES or (read and all(name in few or name in sized for name in read)):
            sized.update(node.output)
    return fixed, sized


def _with_followers(nodes: list[onnx.NodeProto], first: set[int]) -> set[int]:
    """Return these nodes and every node that reads one of their results, directly or not."""
    found, made = set(first), {name for i in first for name in nodes[i].output if name}
    for i, node in enumerate(nodes):
        if i in found or made.intersection(values_read(node)):
            found.add(i)
            made.update(filter(None, node.output))
    return found


def _needed_directly(nodes: list[onnx.NodeProto], untouched: set[int], outputs: set[str]) -> set[int]:
    """Return the nodes that an output of the graph depends on along a path without untouched nodes."""
    found, wanted = set(), set(outputs)
    for i in reversed(range(len(nodes))):
        if i not in untouched and wanted.intersection(nodes[i].output):
            found.add(i)
            wanted.update(values_read(nodes[i]))
    return found


def _values_read(nodes: list[onnx.NodeProto], untouched: set[int], fixed: set[str]) -> set[str]:
    """Return the values that untouched nodes read, and the constants that those of them which are fixed depend on."""
    read = {name for i in untouched for name in values_read(nodes[i])}.difference(*(nodes[i].output for i in untouched))
    for node in reversed(nodes):
        if read.intersection(node.output) and fixed.issuperset(node.output):
            read.update(values_read(node))
    return read

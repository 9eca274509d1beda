"""The rest: what of an ONNX graph pfp leaves as it is, because it is no network any more.

Ops without a rule, those that pick by an order of values, and all that comes after them. Networks end in such: boxes
are chosen, classes are named. What goes in there is what the network says, and is compared, recovered and trained by.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from math import prod

import onnx

from pfpcli.onnx_io.file import is_standard, op_of, reads

#: Ops that name a class, and all that pick by an order of values: rounding changes it, so that nothing behind them can
#: be compared.
_NAMING = ("ArgMax", "ArgMin")
_PICKING = ("TopK", *_NAMING)
#: Ops that compare and round: parts of activations and of masks, unless all they lead to is picked by.
_DECIDING = (
    *("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"),
    *("Cast", "Ceil", "Floor", "Round", "Sign"),
)
#: Ops that compute with weights, if some are constants.
_WEIGHTED = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
#: Ops that come to sizes.
_SIZES = ("Shape", "Size")
#: A constant of more numbers is none that sizes are computed with.
_FEW = 8


@dataclass(frozen=True)
class Rest:
    """What of a graph is not computed.

    Attributes:
        places: of its nodes in the graph.
        unknown: the ops among them that have no rule, one for each node.
        picking: those that pick, if it has to be said: a class is named by what one value says.
        ends: the values that it reads of what is computed, other than sizes; the last that is computed comes first,
            since that is the likeliest to be what the network says.
        reads: these, the sizes and the constants.
        numbers: how many numbers are among its constants.
    """

    places: frozenset[int]
    unknown: tuple[str, ...]
    picking: tuple[str, ...]
    ends: tuple[str, ...]
    reads: frozenset[str]
    numbers: int

    @property
    def ops(self) -> tuple[str, ...]:
        """What the network is followed up to, each once."""
        return tuple(dict.fromkeys((*self.unknown, *self.picking)))


def rest_of(graph: onnx.GraphProto, rules: Container[str]) -> Rest:
    """Find what is left as it is.

    Args:
        graph: of a file, without nodes that no output needs.
        rules: the ops that are computed.
    """
    nodes, ops = list(graph.node), [op_of(node) for node in graph.node]
    fixed, sized = _known(graph)
    unknown = {
        i for i, op in enumerate(ops) if op not in rules and op != "Constant" and not fixed.issuperset(nodes[i].output)
    }
    layers = {i for i, op in enumerate(ops) if op in _WEIGHTED and fixed.intersection(nodes[i].input)}
    looks = {i for i, node in enumerate(nodes) if not fixed.union(sized).issuperset(node.output)}
    picking = {i for i in looks & _behind(nodes, layers) if ops[i] in _PICKING}
    left = _behind(nodes, unknown | picking)
    telling = _telling(nodes, left, {each.name for each in graph.output})
    left = _behind(nodes, unknown | picking | {i for i in looks - telling if ops[i] in _DECIDING})
    read = {name for i in left for name in reads(nodes[i])}.difference(*(nodes[i].output for i in left))
    for node in reversed(nodes):  # and the constants that constants come of
        if read.intersection(node.output) and fixed.issuperset(node.output):
            read.update(reads(node))
    made = [name for i, node in enumerate(nodes) if i not in left for name in node.output]
    numbers = sum(prod(each.dims) for name, each in _constants(graph) if name in read and each.data_type in _FLOATS)
    return Rest(
        frozenset(left),
        tuple(ops[i] for i in sorted(unknown)),
        tuple(ops[i] for i in sorted(picking) if numbers or ops[i] not in _NAMING),
        tuple(name for name in reversed(made) if name in read - fixed - sized),
        frozenset(read),
        numbers,
    )


_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _constants(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    for each in graph.initializer:
        yield each.name, each
    for node in graph.node:
        if op_of(node) == "Constant" and node.attribute[0].HasField("t"):
            yield node.output[0], node.attribute[0].t


def _known(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """The values that come of constants alone, and those that come of sizes and of few numbers."""
    fixed, sized = {each.name for each in graph.initializer}, set()
    few = {name for name, each in _constants(graph) if len(each.dims) <= 1 and prod(each.dims) <= _FEW}
    for node in graph.node:
        read = reads(node)
        if op_of(node) == "Constant" or (read and fixed.issuperset(read) and is_standard(node)):
            fixed.update(node.output)
            if few.issuperset(read) and read:
                few.update(node.output)
        elif op_of(node) in _SIZES or (read and all(name in few or name in sized for name in read)):
            sized.update(node.output)
    return fixed, sized


def _behind(nodes: list[onnx.NodeProto], first: set[int]) -> set[int]:
    """These nodes and all that come after them."""
    found, made = set(first), {name for i in first for name in nodes[i].output if name}
    for i, node in enumerate(nodes):
        if i in found or made.intersection(reads(node)):
            found.add(i)
            made.update(filter(None, node.output))
    return found


def _telling(nodes: list[onnx.NodeProto], left: set[int], outputs: set[str]) -> set[int]:
    """Nodes that have a part in an output by ways around what is left."""
    found, wanted = set(), set(outputs)
    for i in reversed(range(len(nodes))):
        if i not in left and wanted.intersection(nodes[i].output):
            found.add(i)
            wanted.update(reads(nodes[i]))
    return found

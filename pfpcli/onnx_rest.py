"""The rest: what of an ONNX graph pfp leaves as it is, because it is no network any more.

Ops without a rule, those that pick by an order of values, and all that comes after them. Networks end in such: boxes
are chosen, classes are named. What goes in there is what the network says, and is compared, recovered and trained by.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from math import prod

import onnx

from pfpcli.onnx_file import op_of, reads

#: Ops that pick by an order of values, which rounding changes, so that nothing behind them can be compared; those that
#: name a class are not said to be left out.
_NAMING = ("ArgMax", "ArgMin")
_PICKING = ("TopK", *_NAMING)
#: Ops that compare: parts of activations and of masks, unless all they lead to is picked by.
_COMPARING = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
#: Ops that compute with weights, if some are constants.
_LAYERS = ("Conv", "ConvTranspose", "Einsum", "Gemm", "MatMul")
#: Ops that come to numbers that no weight and no image has a part in.
_SIZES = ("Shape", "Size")


@dataclass(frozen=True)
class Rest:
    """What of a graph is not computed.

    Attributes:
        places: of its nodes in the graph.
        ops: those that it begins with: without a rule, or picking; one for each node.
        ends: the values that it reads of what is computed, other than sizes; the last that is computed comes first,
            since that is the likeliest to be what the network says.
        reads: these, the sizes and the constants.
        numbers: how many numbers are among its constants.
    """

    places: frozenset[int]
    ops: tuple[str, ...]
    ends: tuple[str, ...]
    reads: frozenset[str]
    numbers: int


def rest_of(graph: onnx.GraphProto, rules: Container[str]) -> Rest:
    """Find what is left as it is.

    Args:
        graph: of a file.
        rules: the ops that are computed.
    """
    nodes = list(graph.node)
    fixed, sized = _known(graph)
    first = {i for i, node in enumerate(nodes) if node.op_type != "Constant" and op_of(node) not in rules}
    layers = {
        i for i, node in enumerate(nodes) if node.op_type in _LAYERS and any(name in fixed for name in node.input)
    }
    looks = {i for i, node in enumerate(nodes) if not fixed.union(sized).issuperset(node.output)}
    first |= {i for i in looks & _behind(nodes, layers) if nodes[i].op_type in _PICKING}
    left = _behind(nodes, first)
    telling = _telling(nodes, left, {each.name for each in graph.output})
    left = _behind(nodes, first | {i for i in looks - telling if nodes[i].op_type in _COMPARING})
    read = {name for i in left for name in reads(nodes[i])}.difference(*(nodes[i].output for i in left))
    for node in reversed(nodes):  # and the constants that constants come of
        if read.intersection(node.output) and fixed.issuperset(node.output):
            read.update(reads(node))
    made = [name for i, node in enumerate(nodes) if i not in left for name in node.output]
    tensors = [*graph.initializer, *(node.attribute[0].t for node in nodes if node.op_type == "Constant")]
    names = [each.name for each in graph.initializer] + [n.output[0] for n in nodes if n.op_type == "Constant"]
    numbers = {name: prod(each.dims) for name, each in zip(names, tensors, strict=True) if each.data_type in _REAL}
    return Rest(
        frozenset(left),
        tuple(op_of(nodes[i]) for i in sorted(first) if nodes[i].op_type not in _NAMING),
        tuple(name for name in reversed(made) if name in read - fixed - sized),
        frozenset(read),
        sum(numbers.get(name, 0) for name in read),
    )


_REAL = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


def _known(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """The values that come of constants alone, and those that come of sizes."""
    fixed, sized = {each.name for each in graph.initializer}, set()
    for node in graph.node:
        read = [name for name in node.input if name]
        if node.op_type == "Constant" or (read and fixed.issuperset(read)):
            fixed.update(node.output)
        elif node.op_type in _SIZES or (read and all(name in fixed or name in sized for name in read)):
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

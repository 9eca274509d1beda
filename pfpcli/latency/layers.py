"""Layers: the calls of a graph that take time in a runtime, as operators at any widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch.fx.node import Node

from pfpcli.channels.rules.rule import Sizes
from pfpcli.graph.calls import bind
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.latency.operators import Operator
from pfpcli.latency.small_models import BINARY, ELEMENTWISE, is_known

#: Calls that a runtime does without moving data, or folds into a constant or into the layer before.
_FREE = (
    "sym_size", "reshape", "view", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "dropout",
    "alias", "detach", "expand", "contiguous", "lift_fresh_copy", "getitem",
)  # fmt: skip
#: Settings that are sizes of channels: they follow from the shapes.
_SIZES = ("groups", "normalized_shape")
#: Tensors whose size says nothing that the other tensors do not say.
_LESSER = ("bias", "running_mean", "running_var")


@dataclass(frozen=True)
class Layer:
    """The call of an operator in a graph.

    Attributes:
        node: the call.
        reads: the nodes of the tensors that it reads.
        stored: how many of them, the last ones, are constants.
        then: the calls behind it that a runtime may fuse with it.
        last: the last of these calls, or the call itself: its value is the result.
    """

    node: Node
    reads: tuple[Node, ...]
    stored: int
    then: tuple[Node, ...]
    last: Node

    def at(self, sizes: Sizes, batch: Callable[[tuple[int, ...]], tuple[int, ...]]) -> Operator:
        """Return the operator at some widths.

        Args:
            sizes: returns the shape of a node's tensor.
            batch: returns the shape of an activation for the batch that is timed.
        """
        active = len(self.reads) - self.stored
        shapes = [sizes(node) if i >= active else batch(sizes(node)) for i, node in enumerate(self.reads)]
        made = batch(sizes(self.last))
        if is_convolution(self.node):
            shapes[:2], made = _whole_groups(self.node, shapes[0], shapes[1], made)
        elif kind_of(self.node) in BINARY and len(shapes) == 2:
            shapes = _alike(*shapes)
        then = tuple(kind_of(node) for node in self.then)
        return Operator(kind_of(self.node), tuple(shapes), self.stored, made, _settings_of(self.node), then)


def _whole_groups(
    node: Node, read: tuple[int, ...], weight: tuple[int, ...], made: tuple[int, ...]
) -> tuple[list[tuple[int, ...]], tuple[int, ...]]:
    """Return the shapes of a convolution with channels that its groups can share: rounded up at points of a grid.

    Args:
        node: the call.
        read: shape of its input.
        weight: of its weight.
        made: of its result.

    Returns:
        ([the shape of the input, of the weight], of the result).
    """
    given = bind(node)
    if given.get("transposed", "transpose" in kind_of(node)):
        groups = int(given["groups"])
        of_group = math.ceil(read[1] / groups)
        weight, out = (groups * of_group, *weight[1:]), groups * weight[1]
    else:
        of_group = weight[1]
        groups = max(1, read[1] // of_group)
        out = groups * math.ceil(made[1] / groups)
        weight = (out, *weight[1:])
    return [(read[0], groups * of_group, *read[2:]), weight], (made[0], out, *made[2:])


def _alike(a: tuple[int, ...], b: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Return two shapes of which each dimension is the same or 1: the larger size, at points of a grid."""
    common = min(len(a), len(b))
    ends = a[len(a) - common :], b[len(b) - common :]
    most = [max(pair) for pair in zip(*ends, strict=True)]
    stretched = [tuple(1 if own == 1 else size for own, size in zip(end, most, strict=True)) for end in ends]
    return [(*a[: len(a) - common], *stretched[0]), (*b[: len(b) - common], *stretched[1])]


def kind_of(node: Node) -> str:
    """The name of a call's function; of an ATen op without its overload."""
    name = getattr(node.target, "__name__", str(node.target))
    return str(name).partition(".")[0].rstrip("_")


def _settings_of(node: Node) -> tuple[tuple[str, Any], ...]:
    """Return the plain settings of a call: strides, kernel sizes, dimensions."""
    plain = ((name, _plain(value)) for name, value in bind(node).items())
    return tuple((name, value) for name, value in plain if value not in (None, ()) and name not in _SIZES)


def _plain(value: Any) -> Any:
    """Return a setting as a value that JSON can hold; None for tensors and computed values."""
    if isinstance(value, (list, tuple)):
        items = tuple(_plain(each) for each in value)
        return None if any(each is None for each in items) else items
    return value if isinstance(value, (bool, int, float, str)) else None


def layers_of(graph: Graph) -> tuple[list[Layer], list[Node]]:
    """Return the layers of a graph whose operators can be timed, and the calls that cannot.

    A convolution is one layer together with the norm, the sum and the activation behind it.
    """
    position = {node: i for i, node in enumerate(graph.nodes)}
    taken: set[Node] = set()
    layers, unknown = [], []
    for node in graph.nodes:
        kind = kind_of(node)
        if node.op != "call_function" or node in taken or kind in _FREE or not is_tensor(node):
            continue
        if kind == "pad" and [kind_of(user) for user in node.users] == ["conv2d"]:
            continue  # a runtime pads within the convolution
        if not is_known(kind):
            unknown.append(node)
            continue
        reads = list(_tensors_of(node))
        then = tuple(_behind(node, position, taken)) if is_convolution(node) else ()
        taken.update(then)
        last = then[-1] if then else node
        kept = tuple(each for each in then if kind_of(each) != "batch_norm")
        active = [each for each in reads if each.op != "get_attr"]
        stored = [each for each in reads if each.op == "get_attr"]
        layers.append(Layer(node, (*active, *stored), len(stored), kept, last))
    return layers, unknown


def is_convolution(node: Node) -> bool:
    """Whether a call is a convolution."""
    return kind_of(node).startswith("conv")


def _tensors_of(node: Node) -> Iterator[Node]:
    """Yield the tensors that a call reads, in order; of weights with a bias the weights alone."""
    for name, value in bind(node).items():
        for each in value if isinstance(value, (list, tuple)) else (value,):
            if isinstance(each, Node) and is_tensor(each) and name not in _LESSER:
                yield each


def _behind(node: Node, position: dict[Node, int], taken: set[Node]) -> Iterator[Node]:
    """Yield the calls behind a convolution that a runtime may fuse with it: a norm, a sum, an activation, in order."""
    for wanted in (("batch_norm",), ("add",), ELEMENTWISE):
        user = next(iter(node.users), None)
        if len(node.users) != 1 or user is None or user in taken or kind_of(user) not in wanted:
            continue
        if wanted == ("add",):
            others = [each for each in user.all_input_nodes if each is not node]
            # the sum is computed with the convolution that comes last
            if len(others) != 1 or others[0].op == "get_attr" or position[others[0]] > position[node]:
                continue
            if others[0].meta["val"].shape != node.meta["val"].shape:
                continue
        yield user
        node = user

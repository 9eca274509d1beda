"""One label per channel: with which channel does an element of a tensor live and die?

Every dimension of every tensor in the graph either carries a *label vector*, one label per index, or it does not and
then never gets smaller. Labels are numbers handed out by a `Store`; 0 never dies. `label` walks the graph once and lets
each op's rule (pfpcli/ops) say where the labels go; rules *tie* labels that must live and die together and *freeze*
labels that must not die. Everything after that (groups, costs, cutting, masking) only reads the vectors.

What is not known is frozen: an op without a rule freezes the labels that reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node, map_arg

from pfpcli import ops
from pfpcli.trace import Graph, is_constant, owner


@dataclass(frozen=True)
class Axes:
    """The labels of one tensor.

    Attributes:
        shape: its concrete sizes.
        labels: dimension -> int64[shape[dimension]], the label of each index; dimensions that never shrink are absent.
        origin: where it comes from, for the reason given when it freezes what it meets.
    """

    shape: tuple[int, ...]
    labels: dict[int, Tensor] = field(default_factory=dict)
    origin: str = "a tensor of fixed size"

    def dim(self, dim: int) -> int:
        """A dimension counted from the front."""
        return dim % len(self.shape)


class Store:
    """Hands out labels and remembers what was said about them."""

    def __init__(self) -> None:
        self.count = 1
        self.inexact: list[tuple[Tensor, str]] = []
        self._ties: list[Tensor] = []
        self._frozen: list[tuple[Tensor, str]] = []

    def fresh(self, count: int) -> Tensor:
        """New labels: int64[count]."""
        self.count += count
        return torch.arange(self.count - count, self.count)

    def tie(self, first: Tensor, second: Tensor) -> None:
        """Labels at the same place of two vectors live and die together; what is tied to 0 is frozen."""
        if first is second:
            return
        pairs = torch.stack([first, second])
        immortal = (pairs == 0).any(0)
        if immortal.any():
            self.freeze(pairs[:, immortal].flatten(), "joined to something of fixed size")
            pairs = pairs[:, ~immortal]
        self._ties.append(pairs)

    def freeze(self, labels: Tensor, reason: str) -> None:
        """These labels never die."""
        labels = labels.unique()
        self._frozen.append((labels[labels != 0], reason))

    def mark_inexact(self, labels: Tensor, reason: str) -> None:
        """Dropping these labels changes a statistic taken across channels."""
        self.inexact.append((labels.unique(), reason))

    def resolve(self) -> tuple[NDArray[np.int64], dict[int, str]]:
        """What the ties come to.

        Returns:
            root: int64[count], the smallest label each label is tied to; root[0] = 0.
            frozen: root -> the first reason given for freezing one of its labels.
        """
        ties = torch.cat(self._ties, 1).unique(dim=1).numpy() if self._ties else np.zeros((2, 0), np.int64)
        root = _connected(self.count, ties)
        frozen: dict[int, str] = {}
        for labels, reason in self._frozen:
            for label in np.unique(root[labels.numpy()]).tolist():
                frozen.setdefault(label, reason)
        return root, frozen


def _connected(count: int, ties: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest member of each connected component: int64[count]; ties: int64[2, n]."""
    root = np.arange(count)
    while True:
        ends = root[ties]
        low, high = ends.min(0), ends.max(0)
        if (low == high).all():
            return root
        np.minimum.at(root, high, low)
        while not ((shorter := root[root]) == root).all():
            root = shorter


@dataclass(frozen=True)
class Contraction:
    """A place where labelled channels are summed away: what a layer reads, and with which weights.

    Attributes:
        node: the call.
        x: the operand whose channels are read.
        dim: the dimension of `x` that is read.
        labels: int64[x.shape[dim]], the labels read.
        weight: the operand that holds the weights, or None (a plain sum, a product of activations).
        issued: int64[C_out], the labels of the channels it makes, or None.
    """

    node: Node
    x: Node
    dim: int
    labels: Tensor
    weight: Node | None = None
    issued: Tensor | None = None


@dataclass
class Labelled:
    """A graph with its labels.

    Attributes:
        graph: the graph.
        axes: the labels of every tensor-valued node (a tuple of them for a node with several results).
        store: the ties and reasons.
        contractions: every place where channels are read, in graph order.
        unknown: nodes whose op has no rule, in graph order.
    """

    graph: Graph
    axes: dict[Node, Any]
    store: Store
    contractions: list[Contraction]
    unknown: list[Node]


class Flow:
    """What a rule's `flow` works with: the node at hand and the labels so far."""

    def __init__(self, labelled: Labelled, node: Node) -> None:
        self.node = node
        self.store = labelled.store
        self._labelled = labelled

    @property
    def shape(self) -> tuple[int, ...]:
        """The concrete sizes of the result (of the first of several)."""
        value = self.node.meta["val"]
        return tuple((value if isinstance(value, Tensor) else value[0]).shape)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """The concrete sizes of each of several results."""
        return [tuple(value.shape) for value in self.node.meta["val"]]

    def result(self, labels: dict[int, Tensor | None]) -> Axes:
        """The result's labels; dimensions of size 1 and vectors of None carry none."""
        kept = {dim: vector for dim, vector in labels.items() if vector is not None and self.shape[dim] > 1}
        return Axes(self.shape, kept, f"the result of {self.node.name}")

    def freeze(self, axes: Axes, reason: str, dims: Iterable[int] | None = None) -> None:
        """Freeze the labels along some dimensions (all of them by default)."""
        for dim in axes.labels if dims is None else dims:
            if dim in axes.labels:
                self.store.freeze(axes.labels[dim], reason)

    def join(self, *ends: tuple[Axes, int]) -> Tensor | None:
        """Tie the labels along dimensions that go together; returns the labels they share, None if they are fixed."""
        vectors = [axes.labels.get(dim) for axes, dim in ends]
        labelled = [vector for vector in vectors if vector is not None]
        for vector in labelled[1:]:
            self.store.tie(labelled[0], vector)
        if labelled and len(labelled) < len(vectors):
            fixed = next(axes for (axes, _), vector in zip(ends, vectors, strict=True) if vector is None)
            self.store.freeze(labelled[0], f"joined to {fixed.origin}")
        return labelled[0] if labelled else None

    def join_vector(self, vector: Tensor | None, axes: Axes) -> Tensor | None:
        """Tie labels to the only dimension of a bias and the like."""
        return self.join((Axes(axes.shape, {} if vector is None else {0: vector}), 0), (axes, 0))

    def tie_blocks(self, vector: Tensor | None, blocks: int) -> None:
        """Tie position j of equal blocks, so that the blocks lose as many."""
        if vector is not None and blocks > 1:
            rows = vector.view(blocks, -1)
            self.store.tie(rows[0].expand_as(rows).flatten(), rows.flatten())

    def tensor(self, node: Node) -> Tensor:
        """The constant behind a `get_attr` node."""
        return self._labelled.graph.tensor(node)

    def read(self, x: Node, x_axes: Axes, dim: int, weight: Node | None = None, issued: Tensor | None = None) -> None:
        """Note that the channels of `x` along `dim` are summed away here, by `weight` if that is constant."""
        labels = x_axes.labels.get(dim, torch.zeros(x_axes.shape[dim], dtype=torch.int64))
        if weight is not None and not is_constant(weight):
            weight = issued = None
        self._labelled.contractions.append(Contraction(self.node, x, dim, labels, weight, issued))

    def inexact(self, vector: Tensor | None, what: str) -> None:
        """Mark labels as feeding a statistic across channels."""
        if vector is not None:
            self.store.mark_inexact(vector, f"{what} ({owner(self.node)})")

    def join_broadcast(self, operands: Iterable[Axes], dim: int) -> Tensor | None:
        """Tie what meets along a dimension of the result; an operand that is broadcast there puts no constraint."""
        rank, size = len(self.shape), self.shape[dim]
        ends = [(x, dim - rank + len(x.shape)) for x in operands]
        return self.join(*[(x, d) for x, d in ends if d >= 0 and x.shape[d] == size > 1])

    def moved(self, x: Axes, move: Callable[[Tensor], Any]) -> Any:
        """Run a data movement on the labels of `x`: the op itself, on label tensors instead of numbers."""
        many = isinstance(self.node.meta["val"], (tuple, list))
        shapes = self.shapes if many else [self.shape]
        labels: list[dict[int, Tensor]] = [{} for _ in shapes]
        for dim, vector in sorted(x.labels.items()):
            results = move(spread(vector, dim, x.shape))
            for i, (result, taken) in enumerate(zip(results if many else [results], labels, strict=True)):
                self.settle(result, taken, free_dims(self.node, i))
        found = [Axes(shape, taken, x.origin) for shape, taken in zip(shapes, labels, strict=True)]
        return tuple(found) if many else found[0]

    def settle(self, result: Tensor, taken: dict[int, Tensor], unsized: Sequence[int] = ()) -> None:
        """Find the dimension along which a label tensor varies and add it to `taken`.

        Where it varies along several (a reshape split the channels), one stays free, the one with the most distinct
        labels, and the labels along the others are tied: only whole hyperplanes can be cut out of a tensor. A dimension
        that channels share with the batch (`unsized`) has no fixed number of labels and is never the free one.
        """
        if result.numel() == 0:
            return
        varying = []
        for dim in range(result.dim()):
            first = result.narrow(dim, 0, 1)
            if result.shape[dim] == 1 or result.stride(dim) == 0 or bool((result == first).all()):
                result = first
            else:
                varying.append(dim)
        if not varying:
            self.store.freeze(result.flatten(), f"picked by its position in {owner(self.node)}")
            return
        sized = [dim for dim in varying if dim not in unsized]
        if not sized:
            self.store.freeze(result.flatten(), f"put into the batch in {owner(self.node)}")
            return
        free = max(sized, key=lambda dim: _line(result, dim).unique().numel())
        rows = result.movedim(free, -1).reshape(-1, result.shape[free])
        vector = rows[0].clone()
        if len(varying) > 1:
            self.store.tie(vector.expand_as(rows).flatten(), rows.flatten())
        if free in taken:
            # an element that belongs to two channels can follow one of them, if the other never dies
            first = taken[free]
            vector, fixed = (vector, first) if vector.unique().numel() > first.unique().numel() else (first, vector)
            self.store.freeze(fixed, f"flattened together with other channels in {owner(self.node)}")
        taken[free] = vector


def free_dims(node: Node, result: int = 0) -> list[int]:
    """The dimensions of a node's value, or of one of its results, whose size depends on the batch."""
    noted = node.meta.get("free", [])
    return noted[result] if result < len(noted) else []


def _line(labels: Tensor, dim: int) -> Tensor:
    return labels.movedim(dim, -1).reshape(-1, labels.shape[dim])[0]


def spread(vector: Tensor, dim: int, shape: Sequence[int]) -> Tensor:
    """A label vector as a tensor of the full shape, without copies: int64[shape], constant along all other dims."""
    sizes = [1] * len(shape)
    sizes[dim] = -1
    return vector.view(sizes).expand(*shape)


def label(graph: Graph) -> Labelled:
    """Label every tensor of a graph.

    Args:
        graph: as `trace` returns it.
    """
    labelled = Labelled(graph, {}, Store(), [], [])
    by_tensor: dict[int, Axes] = {}
    for node in graph.nodes:
        if node.op == "placeholder":
            labelled.axes[node] = _input(labelled.store, node)
        elif node.op == "get_attr":
            tensor = graph.tensor(node)
            if isinstance(tensor, Tensor):
                # one tensor, one set of labels, under however many names and however often it is used
                if id(tensor) not in by_tensor:
                    by_tensor[id(tensor)] = _parameter(labelled.store, node)
                labelled.axes[node] = by_tensor[id(tensor)]
        elif node.op == "call_function":
            _call(labelled, node)
    for node in graph.outputs:
        _freeze_all(labelled, node, "output of the model")
    return labelled


def _input(store: Store, node: Node) -> Axes:
    shape = tuple(node.meta["val"].shape)
    labels = {dim: store.fresh(size) for dim, size in enumerate(shape) if dim > 0 and size > 1}
    for vector in labels.values():
        store.freeze(vector, "input of the model")
    return Axes(shape, labels, f"input {node.target}")


def _parameter(store: Store, node: Node) -> Axes:
    shape = tuple(node.meta["val"].shape)
    return Axes(shape, {d: store.fresh(n) for d, n in enumerate(shape) if n > 1}, f"{node.target}")


def _call(labelled: Labelled, node: Node) -> None:
    value = node.meta["val"]
    if not _holds_tensors(value):
        return
    rule = ops.find(node.target)
    if rule is None:
        for source in node.all_input_nodes:
            _freeze_all(labelled, source, f"reaches {node.target}, which has no rule")
        labelled.unknown.append(node)
        labelled.axes[node] = _fixed(value, f"the result of {node.target}, which has no rule")
        return
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: operand(labelled, n))
    labelled.axes[node] = rule.flow(Flow(labelled, node), *args, **kwargs)


def operand(labelled: Labelled, node: Node) -> Any:
    """What a rule sees of an argument: its labels if it is a tensor, the number if it is one."""
    return labelled.axes.get(node, node.meta.get("val"))


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, (tuple, list)) and any(map(_holds_tensors, value)))


def _fixed(value: Any, origin: str) -> Any:
    if isinstance(value, Tensor):
        return Axes(tuple(value.shape), {}, origin)
    return tuple(_fixed(part, origin) for part in value) if isinstance(value, (tuple, list)) else value


def _freeze_all(labelled: Labelled, node: Node, reason: str) -> None:
    found = labelled.axes.get(node)
    for axes in found if isinstance(found, tuple) else [found]:
        if isinstance(axes, Axes):
            for vector in axes.labels.values():
                labelled.store.freeze(vector, reason)

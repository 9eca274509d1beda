"""Refit: the weights of a cut layer, chosen anew so that it puts out what the original did, by least squares.

    min over W, b of  sum over images and positions of |W x_hat + b - y|^2 + lambda |W - W_0|^2

x_hat is what the layer reads in the cut network, y what it put out in the original one, W_0 its weights as they are.
With lambda without bound W stays and the mean of what was dropped is folded into b.

Where what a layer makes is added to something else (the end of a residual branch), y also has what the other lacks.
Where it is clipped (ReLU), an error beyond the limit is none: the layer is solved for again with what it makes there
now as its y.

Sources: Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, TPAMI 2016,
section 3.2 (errors after a ReLU; theirs is a relaxation, here the curvature of all rows bounds that of those that
count); He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, sections 3.1 and 3.3; Chee
et al., Model Preserving Compression for Neural Networks, NeurIPS 2022: their interpolative decomposition is what this
comes to for one layer, without an intercept, lambda = 0, and channels chosen by pivots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.least_squares import Dual, Normal, rows
from pfpcli.channels import rules
from pfpcli.channels.layers import Layer
from pfpcli.graph.calls import bind
from pfpcli.graph.graph import is_tensor
from pfpcli.recovery.lockstep import Lockstep
from pfpcli.recovery.tail import NORMS, Tail

#: What lambda may be, relative to the mean square of what the layer reads.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Of so many batches one says which lambda predicts best.
CHECKED = 4
#: Rows of the problem: so many for each of its columns, and at least. Positions beyond that are left out at random.
ROWS, FEWEST = 64, 1 << 16
#: Of a layer with more columns than this, no more numbers are held than there are in X'X of this size.
WIDEST = 8192
#: How often a layer whose result is clipped is solved for again.
CLIPPED = 2


class Refit:
    """Visits the layers of a cut network and refits each.

    Args:
        pair: the networks side by side.
        weights: refit the weights; otherwise only the means.
    """

    def __init__(self, pair: Lockstep, *, weights: bool = True) -> None:
        self._pair = pair
        self._weights = weights
        # weights that several layers share are fitted to all of them, as far as they have come
        self._problems: dict[int, _Problem[Normal] | _Problem[Dual]] = {}
        self._intercepts: dict[int, Intercept | None] = {}

    def __call__(self, node: Node) -> None:
        """Refit the layer of a call, if it is one."""
        layer = layer_of(node)
        if layer is None:
            return
        weight = self._pair.tensor(layer.weight)
        matrix = layer.matrix(weight.detach().double())
        if id(weight) not in self._problems:
            images = processes.total(sum(map(len, self._pair.now(layer.x))))
            self._problems[id(weight)] = _problem(matrix, images, _positions(layer))
            self._intercepts[id(weight)] = Intercept.of(layer, self._pair)
        problem, intercept = self._problems[id(weight)], self._intercepts[id(weight)]
        tail, made = Tail.of(node, self._pair), self._pair.original(node)
        fixed = _fixed(layer, self._pair) if intercept is None else torch.zeros(())
        wanted = (y - fixed for y in tail.wanted(self._pair, made))
        for place, x, (y,) in self._rows(layer, problem, ((y,) for y in wanted)):
            problem.add(place, x, y)
        ridge = problem.ridge(RIDGES if self._weights else (), intercept=intercept is not None)
        both = problem.both
        found = both.solve(problem.start, ridge, intercept=intercept is not None)
        if self._weights and tail.is_clipped and len(self._pair.users(layer.weight)) == 1:
            for _ in range(CLIPPED):
                sums = ((was, added + tail.scale * fixed) for was, added in tail.sums(self._pair, made))
                missed = self._missed(layer, problem, tail, sums, found)
                found = both.after(found, missed).solve(problem.start, ridge, intercept=intercept is not None)
        values = found[:, :-1].unflatten(1, matrix.shape[2:]).permute(0, 3, 1, 2)
        ones = layer.into_weight(layer.matrix(torch.ones_like(weight).double()), weight.detach().double())
        weight.copy_(layer.into_weight(values, weight.detach().double()) / ones)
        if intercept is not None:
            intercept.set(found[:, -1].flatten())

    def _missed(
        self,
        layer: Layer,
        problem: _Problem[Normal] | _Problem[Dual],
        tail: Tail,
        sums: Iterable[tuple[Tensor, Tensor]],
        found: Tensor,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of X, and what the weights miss there now, as far as it is not clipped away.

        Args:
            layer: the layer.
            problem: its rows.
            tail: what follows it.
            sums: what the original clips, and what is added to what the weights make, batch by batch.
            found: float64[G, K + 1, O], the weights now.
        """
        triples = ((was, added, tail.scale.to(was).expand_as(was)) for was, added in sums)
        for _, x, (was, added, scale) in self._rows(layer, problem, triples):
            yield x, tail.missed(was, scale * (x @ found) + added, scale)

    def _rows(
        self, layer: Layer, problem: _Problem[Normal] | _Problem[Dual], results: Iterable[tuple[Tensor, ...]]
    ) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """What the layer reads, as rows, at the same positions each time.

        Args:
            layer: the layer.
            problem: of its shape.
            results: tensors of the shape of what the layer makes, batch by batch.

        Yields:
            (place of the batch, float64[G, M, K + 1], for each of the tensors float64[G, M, O]).
        """
        rule = rules.find(layer.node.target)
        assert rule is not None
        groups, _, outputs = problem.start.shape
        weight, read = self._pair.tensor(layer.weight), self._pair.now(layer.x)
        for place, x, made in zip(self._pair.places, read, results, strict=True):
            # by batch: which positions are looked at does not depend on the process that has it
            random = torch.Generator().manual_seed(place)
            flat = [y.movedim(rule.made, 1).reshape(len(y), groups, outputs, -1) for y in made]
            done = 0
            for piece in layer.pieces(x, weight):
                seen, some = rows(piece, problem.positions, random)
                parts = [y[done : done + len(piece.x)][..., some.to(y.device)] for y in flat]
                yield place, seen, [part.permute(1, 0, 3, 2).flatten(1, 2).double() for part in parts]
                done += len(piece.x)


_Sums = TypeVar("_Sums", Normal, Dual)


@dataclass
class _Problem(Generic[_Sums]):
    """The least squares of one weight.

    Attributes:
        start: float64[G, K, O], the weights as they were.
        positions: of each image that are looked at, at most.
        fitted, checked: what they are fitted to, and what says which lambda is best.
    """

    start: Tensor
    positions: int
    fitted: _Sums
    checked: _Sums

    def add(self, batch: int, x: Tensor, y: Tensor) -> None:
        """Add rows of a batch."""
        (self.checked if batch % CHECKED == CHECKED - 1 else self.fitted).add(x, y)

    @property
    def both(self) -> _Sums:
        """Of all rows of all processes."""
        return self.fitted.of_all() + self.checked.of_all()

    def ridge(self, ridges: tuple[float, ...], *, intercept: bool) -> float | None:
        """The lambda that predicts best, or none of them: then the weights stay. All processes have the same one."""
        fitted, checked = self.fitted.of_all(), self.checked.of_all()
        choices: list[float | None] = [None, *ridges]
        if len(choices) == 1 or checked.is_empty:
            return choices[len(choices) // 2]
        errors = fitted.errors(checked, self.start, choices, intercept=intercept)
        return choices[errors.index(min(errors))]


def _problem(matrix: Tensor, images: int, positions: int) -> _Problem[Normal] | _Problem[Dual]:
    """No rows yet.

    Args:
        matrix: float64[G, O, J, R].
        images: that will be looked at.
        positions: where each image is read.
    """
    start = matrix.permute(0, 2, 3, 1).flatten(1, 2)
    groups, columns, outputs = start.shape
    most = max(FEWEST, ROWS * columns) if columns <= WIDEST else WIDEST**2 // columns
    positions = max(1, min(positions, -(-most // max(1, images))))
    if columns > WIDEST or images * positions < columns:
        return _Problem(start, positions, Dual([]), Dual([]))
    return _Problem(start, positions, *(Normal.empty(groups, columns, outputs, matrix.device) for _ in range(2)))


def _positions(layer: Layer) -> int:
    """Where a layer reads each image."""
    made, rule = layer.node.meta["val"], rules.find(layer.node.target)
    assert rule is not None
    return int(made.numel() // (made.shape[0] * made.shape[rule.made]))


def layer_of(node: Node) -> Layer | None:
    """The layer a call is, None if it has no weights of its own."""
    rule = rules.find(node.target) if node.op == "call_function" else None
    if rule is None or rule.columns is None:
        return None
    x, weight = (_operand(node, i) for i in rule.operands[:2])
    if x is None or weight is None or weight.op != "get_attr" or not is_tensor(x):
        return None
    read, held = x.meta["val"], weight.meta["val"]
    # a single vector has no rows, and a stack of weights is no layer
    if read.dim() < 2 or (str(node.target) in _PRODUCTS and held.dim() != 2):
        return None
    with read.fake_mode:
        columns = rule.columns(node, read, held)
    return Layer(node, x, weight, columns.x.shape[3])


#: Products that are a layer where what they multiply with is one matrix.
_PRODUCTS = ("aten.matmul.default", "aten.bmm.default", "aten.addmm.default", "aten.baddbmm.default")


def _operand(node: Node, index: int) -> Node | None:
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    found = bind(node).get(names[index])
    return found if isinstance(found, Node) else None


def _bias(layer: Layer) -> Node | None:
    """The bias of a layer, if it has one."""
    rule = rules.find(layer.node.target)
    assert rule is not None
    return _operand(layer.node, rule.operands[2]) if len(rule.operands) > 2 else None


def _fixed(layer: Layer, pair: Lockstep) -> Tensor:
    """A bias that has to stay as it is, of a shape that fits what the layer makes; float[] where there is none."""
    rule, bias = rules.find(layer.node.target), _bias(layer)
    assert rule is not None
    if bias is None:
        return torch.zeros(())
    sizes = [1] * layer.node.meta["val"].dim()
    sizes[rule.made] = -1
    return pair.tensor(bias).detach().view(sizes)


def _place(layer: Layer) -> tuple[Node, Node] | None:
    """What an intercept of a layer could be put into, a number for each channel it makes, and the call that adds it."""
    rule, place, reader = rules.find(layer.node.target), _bias(layer), layer.node
    assert rule is not None
    if place is None:
        norms = list(layer.node.users)
        if len(norms) != 1 or str(norms[0].target) not in NORMS:
            return None
        place, reader = bind(norms[0])["running_mean"], norms[0]
    size = layer.node.meta["val"].shape[rule.made]
    is_there = place is not None and place.op == "get_attr" and place.meta["val"].shape == (size,)
    return (place, reader) if is_there else None


@dataclass(frozen=True)
class Intercept:
    """Where a layer's intercept goes: its bias, or the running mean of the batch norm that alone reads it.

    Attributes:
        tensor: float[C_out].
        mean: the running mean as it was, from which the intercept is subtracted; None where it is a bias.
    """

    tensor: Tensor
    mean: Tensor | None

    @classmethod
    def of(cls, layer: Layer, pair: Lockstep) -> Intercept | None:
        """None if there is no such place, or not one for all that share the weights, or if others use it, too."""
        calls = [layer_of(call) for call in pair.users(layer.weight)]
        found = [_place(call) if call is not None else None for call in calls]
        places, readers = [each[0] for each in found if each], [each[1] for each in found if each]
        if len(places) < len(calls) or len({id(pair.tensor(place)) for place in places}) > 1:
            return None
        if not pair.users(places[0]) <= set(readers):
            return None
        tensor = pair.tensor(places[0])
        return cls(tensor, tensor.detach().clone() if str(readers[0].target) in NORMS else None)

    def set(self, value: Tensor) -> None:
        """Put there what the layer has to add to what its weights make: float[C_out]."""
        self.tensor.copy_(value if self.mean is None else self.mean - value)

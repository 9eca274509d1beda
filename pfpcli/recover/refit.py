"""Refit: the weights of a cut layer, chosen anew so that it puts out what the original did, by least squares.

    min over W, b of  sum over images and positions of |W x_hat + b - y|^2 + lambda |W - W_0|^2

x_hat is what the layer reads in the cut network, y what it put out in the original one, W_0 its weights as they are.
With lambda without bound W stays and the mean of what was dropped is folded into b.

Where what a layer makes is added to something else (the end of a residual branch), y also has what the other lacks.

Sources: He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, sections 3.1 and 3.3; Chee
et al., Model Preserving Compression for Neural Networks, NeurIPS 2022: their interpolative decomposition is what this
comes to for one layer, without an intercept, lambda = 0, and channels chosen by pivots.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import ops, processes
from pfpcli.graph import is_tensor
from pfpcli.layers import Layer
from pfpcli.normal import Normal, rows
from pfpcli.ops import bind
from pfpcli.recover.lockstep import Lockstep, shifts

#: What lambda may be, relative to the mean square of what the layer reads.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: Of so many batches one says which lambda predicts best.
CHECKED = 4
#: Rows of the problem: so many for each of its columns, and at least. Positions beyond that are left out at random.
ROWS, FEWEST = 64, 1 << 16
#: More columns than this are not solved for: such a layer gets its mean alone.
WIDEST = 8192
#: Calls that take running statistics.
NORMS = ("aten.batch_norm.default", "aten._native_batch_norm_legit_no_training.default")


class Refit:
    """Visits the layers of a cut network and refits each.

    Args:
        pair: the networks side by side.
        weights: refit the weights; otherwise only the means.
    """

    def __init__(self, pair: Lockstep, *, weights: bool = True) -> None:
        self._pair = pair
        self._weights = weights
        # by batch: which positions are looked at does not depend on the process that has it
        self._random: dict[int, torch.Generator] = {}
        # weights that several layers share are fitted to all of them, as far as they have come
        self._problems: dict[int, _Problem] = {}
        self._intercepts: dict[int, Intercept | None] = {}

    def __call__(self, node: Node) -> None:
        """Refit the layer of a call, if it is one."""
        layer = layer_of(node)
        if layer is None:
            return
        weight = self._pair.tensor(layer.weight)
        matrix = layer.matrix(weight.detach().double())
        if id(weight) not in self._problems:
            self._problems[id(weight)] = _Problem.of(matrix)
            self._intercepts[id(weight)] = Intercept.of(layer, self._pair)
        problem, intercept = self._problems[id(weight)], self._intercepts[id(weight)]
        self._add(layer, weight, problem, fixed=_bias(layer) if intercept is None else None)
        found = problem.solve(RIDGES if self._weights else (), intercept=intercept is not None)
        values = found[:, :-1].unflatten(1, matrix.shape[2:]).permute(0, 3, 1, 2)
        ones = layer.into_weight(layer.matrix(torch.ones_like(weight).double()), weight.detach().double())
        weight.copy_(layer.into_weight(values, weight.detach().double()) / ones)
        if intercept is not None:
            intercept.set(found[:, -1].flatten())

    def _add(self, layer: Layer, weight: Tensor, problem: _Problem, fixed: Node | None) -> None:
        """Add what the layer reads, and what its weights should make of it; fixed: a bias that has to stay."""
        rule = ops.find(layer.node.target)
        assert rule is not None
        groups, columns, outputs = problem.start.shape
        targets = self._targets(layer.node)
        images = processes.total(sum(map(len, targets)))
        wanted = -(-max(FEWEST, ROWS * columns) // images)
        for place, x, y in zip(self._pair.places, self._pair.now(layer.x), targets, strict=True):
            random = self._random.setdefault(place, torch.Generator().manual_seed(place))
            made = y.movedim(rule.made, 1).reshape(len(y), groups, outputs, -1)
            if fixed is not None:
                made = made - self._pair.tensor(fixed).detach().expand(groups * outputs).view(groups, outputs, 1)
            done = 0
            for piece in layer.pieces(x, weight):
                read, some = rows(piece, wanted, random)
                part = made[done : done + len(piece.x)][..., some.to(y.device)]
                problem.add(place, read, part.permute(1, 0, 3, 2).flatten(1, 2).double())
                done += len(piece.x)

    def _targets(self, node: Node) -> list[Tensor]:
        """What a call should put out, batch by batch."""
        made = self._pair.original(node)
        joined = _joined(node, self._pair)
        if joined is None:
            return made
        other, scale = joined
        return [y + lacks / scale for y, lacks in zip(made, shifts(self._pair, other), strict=True)]


@dataclass
class _Problem:
    """The least squares of one weight.

    Attributes:
        start: float64[G, K, O], the weights as they were.
        fitted, checked: what they are fitted to, and what says which lambda is best.
    """

    start: Tensor
    fitted: Normal
    checked: Normal

    @classmethod
    def of(cls, matrix: Tensor) -> _Problem:
        """No rows yet; matrix: float64[G, O, J, R]."""
        groups, outputs, inputs, kernel = matrix.shape
        empty = [Normal.empty(groups, inputs * kernel, outputs, matrix.device) for _ in range(2)]
        return cls(matrix.permute(0, 2, 3, 1).flatten(1, 2), *empty)

    def add(self, batch: int, x: Tensor, y: Tensor) -> None:
        """Add rows of a batch."""
        (self.checked if batch % CHECKED == CHECKED - 1 else self.fitted).add(x, y)

    def solve(self, ridges: tuple[float, ...], *, intercept: bool) -> Tensor:
        """The weights with the lambda that predicts best, or with none of them: float64[G, K + 1, O].

        All processes have the same ones.
        """
        fitted, checked = self.fitted.of_all(), self.checked.of_all()
        both = fitted + checked
        choices: list[float | None] = [None, *(ridges if self.start.shape[1] <= WIDEST else ())]
        if len(choices) == 1 or not checked.gram.any():
            return both.solve(self.start, choices[len(choices) // 2], intercept=intercept)
        errors = [float(checked.loss(fitted.solve(self.start, ridge, intercept=intercept)).sum()) for ridge in choices]
        return both.solve(self.start, choices[errors.index(min(errors))], intercept=intercept)


def layer_of(node: Node) -> Layer | None:
    """The layer a call is, None if it has no weights of its own."""
    rule = ops.find(node.target) if node.op == "call_function" else None
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
    rule = ops.find(layer.node.target)
    assert rule is not None
    return _operand(layer.node, rule.operands[2]) if len(rule.operands) > 2 else None


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
        """None if there is no such place, or if others use it, too."""
        rule, place = ops.find(layer.node.target), _bias(layer)
        assert rule is not None
        calls = [layer.node]
        if place is None:
            norms = list(layer.node.users)
            if len(norms) != 1 or str(norms[0].target) not in NORMS:
                return None
            place, calls = bind(norms[0])["running_mean"], norms
        size = layer.node.meta["val"].shape[rule.made]
        if place is None or place.op != "get_attr" or place.meta["val"].shape != (size,):
            return None
        if not pair.users(place) <= {*calls, *pair.users(layer.weight)}:
            return None
        tensor = pair.tensor(place)
        return cls(tensor, tensor.detach().clone() if calls != [layer.node] else None)

    def set(self, value: Tensor) -> None:
        """Put there what the layer has to add to what its weights make: float[C_out]."""
        self.tensor.copy_(value if self.mean is None else self.mean - value)


def _joined(node: Node, pair: Lockstep) -> tuple[Node, Tensor] | None:
    """What a layer's result is added to: (the other, what the result is multiplied with before, per channel).

    Between them every channel may only be scaled and shifted, by a batch norm. None where that is not so, or where the
    other is not computed yet: then it is the other that makes good what this one lacks.
    """
    scale = torch.ones(())
    here = node
    while len(here.users) == 1:
        user = next(iter(here.users))
        if str(user.target) in NORMS and user.args[0] is here:
            scale = scale * _scale(user, pair)
        elif str(user.target) == "aten.add.Tensor" and not user.kwargs:
            others = [each for each in user.args if each is not here]
            other: Any = others[0] if len(others) == 1 else None
            is_like = isinstance(other, Node) and is_tensor(other)
            if not is_like or other.meta["val"].shape != here.meta["val"].shape or not pair.is_known(other):
                return None
            return other, torch.where(scale.abs() > _TINY, scale, torch.inf)
        elif str(user.target) != "<built-in function getitem>":
            return None
        here = user
    return None


#: A channel that is scaled by less than this makes nothing good.
_TINY = 1e-6


def _scale(norm: Node, pair: Lockstep) -> Tensor:
    """float[C, 1, ...]: what a batch norm multiplies with."""
    given = bind(norm)
    scale: Tensor = (pair.tensor(given["running_var"]) + given["eps"]).rsqrt()
    if given["weight"] is not None:
        scale = scale * pair.tensor(given["weight"]).detach()
    rank: int = given["input"].meta["val"].dim()
    return scale.view(-1, *[1] * (rank - 2))

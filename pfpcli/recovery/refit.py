"""Refit: replace the weights of a cut layer so that its result is the original's result, by least squares.

    min over W, b of  sum over images and positions of |W x_hat + b - y|^2 + lambda |W - W_0|^2

x_hat is the input of the layer in the cut network, y its result in the original, W_0 its present weights. As lambda
grows without bound, W stays W_0 and b takes the mean of what the dropped channels contributed.

If the result of the layer is added to another tensor (the end of a residual branch), y also contains the error of that
tensor. If the result is clipped (ReLU), an error beyond the limit does not count: the layer is solved again, and its
present result replaces y there.

Sources: Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, TPAMI 2016,
section 3.2 (errors after a ReLU; they solve a relaxation, while here the curvature of all rows bounds the curvature of
the rows that count); He et al., Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017, sections 3.1 and
3.3; Chee et al., Model Preserving Compression for Neural Networks, NeurIPS 2022: their interpolative decomposition is
this problem for one layer without an intercept, with lambda = 0 and with channels chosen by pivots.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.least_squares import Dual, Normal, rows
from pfpcli.channels.layers import Layer
from pfpcli.recovery.call_by_call import recover_calls
from pfpcli.recovery.epilogue import Epilogue
from pfpcli.recovery.paired_run import PairedRun
from pfpcli.recovery.refit_layers import Intercept, fixed_bias, layer_of, output_dim, positions
from pfpcli.recovery.refit_problem import Problem, open_problem
from pfpcli.recovery.task import RecoveryTask

#: The choices of lambda, relative to the mean square of the layer's input.
RIDGES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
#: How often a layer with a clipped result is solved again.
CLIPPED = 2

_Problem = Problem[Normal] | Problem[Dual]


def refit_weights(task: RecoveryTask) -> int:
    """Refit the weights and biases of all layers; returns the number of images."""
    return recover_calls(task, Refit)


def refit_biases(task: RecoveryTask) -> int:
    """Refit the biases of all layers and keep their weights; returns the number of images."""
    return recover_calls(task, lambda pair: Refit(pair, weights=False))


class Refit:
    """A visitor of the calls of a cut network that refits every layer.

    Args:
        pair: both networks.
        weights: whether to refit the weights as well as the biases.
    """

    def __init__(self, pair: PairedRun, *, weights: bool = True) -> None:
        self._pair = pair
        self._weights = weights
        # layers that share a weight share a problem: each call refits the weight to the rows of all calls so far
        self._problems: dict[int, _Problem] = {}
        self._intercepts: dict[int, Intercept | None] = {}

    def __call__(self, node: Node) -> None:
        """Refit the layer of a call, if the call is a layer."""
        layer = layer_of(node)
        if layer is None:
            return
        problem, intercept = self._problem(layer)
        epilogue, made = Epilogue.of(node, self._pair), self._pair.original(node)
        fixed = fixed_bias(layer, self._pair) if intercept is None else torch.zeros(())
        targets = (y - fixed for y in epilogue.targets(self._pair, made))
        for place, x, (y,) in self._rows(layer, problem, ((y,) for y in targets)):
            problem.add(place, x, y)
        ridge = problem.ridge(RIDGES if self._weights else (), intercept=intercept is not None)
        both = problem.both
        found = both.solve(problem.start, ridge, intercept=intercept is not None)
        if self._weights and epilogue.is_clipped and len(self._pair.users(layer.weight)) == 1:
            for _ in range(CLIPPED):
                sums = ((was, added + epilogue.scale * fixed) for was, added in epilogue.sums(self._pair, made))
                residuals = self._residuals(layer, problem, epilogue, sums, found)
                found = both.after(found, residuals).solve(problem.start, ridge, intercept=intercept is not None)
        self._set_weight(layer, found)
        if intercept is not None:
            intercept.set(found[:, -1].flatten())

    def _problem(self, layer: Layer) -> tuple[_Problem, Intercept | None]:
        """The problem and the intercept of a layer's weight; both are made at the first call that uses the weight."""
        weight = self._pair.tensor(layer.weight)
        if id(weight) not in self._problems:
            images = processes.total(sum(map(len, self._pair.now(layer.x))))
            matrix = layer.matrix(weight.detach().double())
            self._problems[id(weight)] = open_problem(matrix, images, positions(layer))
            self._intercepts[id(weight)] = Intercept.of(layer, self._pair)
        return self._problems[id(weight)], self._intercepts[id(weight)]

    def _set_weight(self, layer: Layer, found: Tensor) -> None:
        """Set the weight of a layer to a solution, float64[G, K + 1, O]."""
        weight = self._pair.tensor(layer.weight)
        kernel = layer.matrix(weight.detach()).shape[2:]
        values = found[:, :-1].unflatten(1, kernel).permute(0, 3, 1, 2)
        ones = layer.into_weight(layer.matrix(torch.ones_like(weight).double()), weight.detach().double())
        weight.copy_(layer.into_weight(values, weight.detach().double()) / ones)

    def _residuals(
        self,
        layer: Layer,
        problem: _Problem,
        epilogue: Epilogue,
        sums: Iterable[tuple[Tensor, Tensor]],
        found: Tensor,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Rows of X, float64[G, M, K + 1], and the residuals of a solution after clipping, float64[G, M, O].

        Args:
            layer: the layer.
            problem: its problem.
            epilogue: the operations after the layer.
            sums: for each batch, the original's sum before clipping and what is added to the product of the weights.
            found: float64[G, K + 1, O], the solution.
        """
        triples = ((was, added, epilogue.scale.to(was).expand_as(was)) for was, added in sums)
        for _, x, (was, added, scale) in self._rows(layer, problem, triples):
            yield x, epilogue.residual(was, scale * (x @ found) + added, scale)

    def _rows(
        self, layer: Layer, problem: _Problem, results: Iterable[tuple[Tensor, ...]]
    ) -> Iterator[tuple[int, Tensor, list[Tensor]]]:
        """The input of the layer as rows. The random positions of a batch are the same in every call.

        Args:
            layer: the layer.
            problem: its problem.
            results: for each batch, tensors in the shape of the layer's result.

        Yields:
            (index of the batch, float64[G, M, K + 1], the tensors of `results` as float64[G, M, O]).
        """
        groups, _, outputs = problem.start.shape
        weight, read = self._pair.tensor(layer.weight), self._pair.now(layer.x)
        for place, x, made in zip(self._pair.places, read, results, strict=True):
            # seeded by the batch: the positions do not depend on the process that runs it
            random = torch.Generator().manual_seed(place)
            flat = [y.movedim(output_dim(layer), 1).reshape(len(y), groups, outputs, -1) for y in made]
            done = 0
            for piece in layer.pieces(x, weight):
                seen, some = rows(piece, problem.positions, random)
                parts = [y[done : done + len(piece.x)][..., some.to(y.device)] for y in flat]
                yield place, seen, [part.permute(1, 0, 3, 2).flatten(1, 2).double() for part in parts]
                done += len(piece.x)

"""Refit: replace the weights of a cut layer so that its result is the original's result, by least squares.

    min over W, b of  sum over images and positions of s |W x_hat + b - y|^2 + lambda |W - W_0|^2

x_hat is the input of the layer in the cut network, y its result in the original, W_0 its present weights, s the
importance of the position (`importance`). As lambda grows without bound, W stays W_0 and b takes the mean of what the
dropped channels contributed.

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

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import memory, processes
from pfpcli.activations.row_products import draw_patches
from pfpcli.channels import rules
from pfpcli.channels.layers import Layer
from pfpcli.recovery import importance
from pfpcli.recovery.call_by_call import recover_calls
from pfpcli.recovery.epilogue import Epilogue
from pfpcli.recovery.importance import Importance
from pfpcli.recovery.paired_run import BatchValues, PairedRun
from pfpcli.recovery.refit_layers import Intercept, fixed_bias, is_layer, layer_of
from pfpcli.recovery.refit_problem import FULL, Effort, Problem, open_problem
from pfpcli.recovery.spread import ScoreChannels, kept_spread, score_channels
from pfpcli.recovery.task import RecoveryTask

#: Numbers of a solution that are smaller than the largest one by this factor are set to 0.
_TRACE = 1e-20
#: The most numbers of rows of a layer that are in memory from one reading to the next.
HELD = 1 << 24


def refit_weights(task: RecoveryTask) -> int:
    """Refit the weights and biases of all layers; returns the number of images."""
    findings = Findings()
    images = recover_calls(
        task, lambda pair: Refit(pair, findings=findings, scores=score_channels(pair.whole, task.device))
    )
    if findings.importance is not None and findings.importance.missing:
        task.remarks.append(f"lsq counts all positions of a map the same: {findings.importance.missing}")
    return images


def refit_biases(task: RecoveryTask) -> int:
    """Refit the biases of all layers and keep their weights; returns the number of images."""
    return recover_calls(task, lambda pair: Refit(pair, weights=False))


@dataclass
class Findings:
    """What refits of one network to the same images find out once.

    Attributes:
        ridges: call -> the lambda that its layer was solved with; the first refit that solves a layer chooses it.
        importance: of the positions of the results of all layers; None until it is measured.
    """

    ridges: dict[str, float | None] = field(default_factory=dict)
    importance: Importance | None = None


class Refit:
    """A visitor of the calls of a cut network that refits every layer.

    Args:
        pair: both networks.
        weights: whether to refit the weights as well as the biases.
        effort: how carefully each layer is solved.
        findings: of refits of the same network to the same images; what is missing is found out and added.
        scores: the channels whose spread is kept.
    """

    def __init__(
        self,
        pair: PairedRun,
        *,
        weights: bool = True,
        effort: Effort = FULL,
        findings: Findings | None = None,
        scores: ScoreChannels | None = None,
    ) -> None:
        self._pair = pair
        self._weights = weights
        self._effort = effort
        self._scores = scores or {}
        self._findings = findings or Findings()
        if weights and self._findings.importance is None:
            images = (batch.images for batch in pair.batches)
            self._findings.importance = importance.measure(pair.whole, pair.visited(self), images)
        # layers that share a weight share a problem: each call refits the weight to the rows of all calls so far
        self._shared: dict[tuple[int, object], tuple[Problem, Intercept | None]] = {}

    def wants(self, node: Node) -> bool:
        """Whether a call is a layer."""
        return is_layer(node)

    def __call__(self, node: Node) -> None:
        """Refit the layer of a call."""
        layer = layer_of(node)
        assert layer is not None
        weights = self._weights and _has_one_form(self._pair.users(layer.weight))
        problem, intercept = self._problem(layer)
        rows, users = problem.rows, self._pair.users(layer.weight)
        epilogue = Epilogue.of(layer.node, self._pair).of_rows(len(rows.start))
        important = self._findings.importance.of.get(node.name) if weights and self._findings.importance else None
        batches = _LayerBatches(self._pair, layer, problem, epilogue, important)
        fixed = torch.zeros(()) if intercept is not None else self._as_row(fixed_bias(layer, self._pair), problem)
        for batch in batches:
            target = epilogue.target(batch.made, batch.before, batch.now) - fixed
            problem.add(batch.first, batch.images, batch.root * batch.x, batch.root * target)
        memory.give_back_if_grown()
        ridges = self._findings.ridges
        if node.name not in ridges:
            ridges[node.name] = problem.ridge(self._effort.ridges if weights else ())
        ridge = ridges[node.name]
        found = rows.solve(ridge)
        if weights and epilogue.is_clipped and len(users) == 1:
            for _ in range(self._effort.clipped):
                missed = ((batch.root * batch.x, batch.missed(epilogue, found, fixed)) for batch in batches)
                found = rows.again(found, missed, ridge)
        scores = self._scores.get(node.name)
        if weights and scores is not None and intercept is not None and len(users) == 1 and epilogue.other is None:
            rows_of = ((batch.root, batch.x, batch.made) for batch in batches)
            found = kept_spread(found, rows_of, self._as_row(scores, problem))
        found = _without_traces(found)
        if weights:
            self._set_weight(layer, found)
        if intercept is not None:
            intercept.set(found[:, -1].flatten())

    def _problem(self, layer: Layer) -> tuple[Problem, Intercept | None]:
        """The problem and the intercept of a layer's weight; both are made at the first call that uses the weight."""
        weight = self._pair.tensor(layer.weight)
        key = (id(weight), layer.node.target)
        if key in self._shared:
            return self._shared[key]
        images = processes.total(sum(batch.length(layer.x) for batch in self._pair.batches))
        matrix, intercept = layer.matrix(weight.detach().double()), Intercept.of(layer, self._pair)
        is_final = len(self._pair.users(layer.weight)) == 1
        made = open_problem(
            matrix, images, layer.patches, self._effort, intercept=intercept is not None, is_final=is_final
        )
        if not is_final:
            self._shared[key] = made, intercept
        return made, intercept

    def _set_weight(self, layer: Layer, found: Tensor) -> None:
        """Set the weight of a layer to a solution, float64[G, K + 1, O]."""
        weight = self._pair.tensor(layer.weight)
        kernel = layer.matrix(weight.detach()).shape[2:]
        values = found[:, :-1].unflatten(1, kernel).permute(0, 3, 1, 2)
        ones = layer.into_weight(layer.matrix(torch.ones_like(weight).double()), weight.detach().double())
        weight.copy_(layer.into_weight(values, weight.detach().double()) / ones)

    def _as_row(self, bias: Tensor, problem: Problem) -> Tensor:
        """A bias as float[G, 1, O]."""
        return bias.reshape(len(problem.rows.start), 1, -1) if bias.dim() else bias


def _without_traces(found: Tensor) -> Tensor:
    """Return a solution with 0 in the place of numbers that are far below the rounding of the others.

    A fit to an output that is never anything but 0 leaves numbers like 1e-40. They change nothing, but processors
    compute with numbers below 1e-38 many times as slowly: one such channel can make a network slower than the original.
    """
    return torch.where(found.abs() < _TRACE * found.abs().max(), 0.0, found)


def _has_one_form(users: set[Node]) -> bool:
    """Whether all calls that use a weight are layers of one op.

    A weight that is also used in another form (in a transposed convolution, or transposed) has no refit: what one use
    gains, the other loses.
    """
    return all(map(is_layer, users)) and len({user.target for user in users}) == 1


class _LayerBatches:
    """What a layer reads and makes, and what is added to it, at random positions of each batch, as rows.

    Rows that fit into memory are gathered once, others whenever they are read.

    Args:
        pair: both networks.
        layer: the layer.
        problem: its least squares problem.
        epilogue: the operations after the layer.
        important: for each batch, the importance of the positions, float[N, P]; None if all count the same.
    """

    def __init__(
        self, pair: PairedRun, layer: Layer, problem: Problem, epilogue: Epilogue, important: list[Tensor] | None
    ) -> None:
        self._pair, self._layer, self._problem, self._other = pair, layer, problem, epilogue.other
        self._important = important
        self._held: list[_LayerRows] = []
        self._left = HELD

    def __iter__(self) -> Iterator[_LayerRows]:
        for i, values in enumerate(self._pair.batches):
            if i < len(self._held):
                yield self._held[i]
                continue
            batch = self._gathered(values, None if self._important is None else self._important[i])
            size = sum(rows.numel() for rows in (batch.x, batch.made, batch.before, batch.now))
            if i == len(self._held) and size <= self._left:
                self._held.append(batch)
                self._left -= size
            yield batch
            memory.give_back_if_grown()

    def _gathered(self, values: BatchValues, important: Tensor | None) -> _LayerRows:
        layer, groups = self._layer, len(self._problem.rows.start)
        # seeded by the batch: the positions do not depend on the process that runs it
        random = torch.Generator().manual_seed(values.first)
        x = values.now(layer.x)
        patches = draw_patches(layer.patches, self._problem.positions, random).to(x.device)
        others = [values.original(layer.node), None, None]
        if self._other is not None:
            others[1:] = values.original(self._other), values.now(self._other)
        dim = rules.output_dim(layer.node)
        rows = (_as_rows(each, dim, groups, patches) for each in others)
        counts = torch.ones(1) if important is None else important[:, patches].float()
        root = counts.sqrt().reshape(1, -1, 1).to(x.device)
        return _LayerRows(values.first, len(x), root, layer.rows(x, patches), *rows)


@dataclass(frozen=True)
class _LayerRows:
    """What a layer reads and makes at some positions of a batch of images.

    Attributes:
        first: the index of the first image among all images.
        images: n, the number of images.
        root: float32[1, n * p, 1] or float32[1, 1, 1], the root of the importance of each row.
        x: float32[G, n * p, K + 1], the input in the cut network; the last column is one.
        made: float32[G, n * p, O], the result in the original.
        before, now: float32[G, n * p, O] or float32[], what is added to the result, in the original and in the cut
            network.
    """

    first: int
    images: int
    root: Tensor
    x: Tensor
    made: Tensor
    before: Tensor
    now: Tensor

    def missed(self, epilogue: Epilogue, found: Tensor, fixed: Tensor) -> Tensor:
        """The residual of a solution after clipping, times the root of the importance: float[G, n * p, O].

        Args:
            epilogue: the operations after the layer, for rows.
            found: float64[G, K + 1, O], the solution.
            fixed: float[G, 1, O] or float[], a bias that stays as it is.
        """
        was = epilogue.scale * self.made + epilogue.shift + epilogue.share * self.before
        result = self.x @ found.float() + fixed
        now = epilogue.scale * result + epilogue.shift + epilogue.share * self.now
        return self.root * epilogue.residual(was, now, epilogue.scale.to(was).expand_as(was))


def _as_rows(made: Tensor | None, dim: int, groups: int, patches: Tensor) -> Tensor:
    """A result of a layer at some patches, as rows: float32[G, N * p, O]; float32[] zero for no result.

    Args:
        made: float[N, ...] with the output channels along a dimension.
        dim: the dimension.
        groups: G, the groups of the layer.
        patches: int64[p].
    """
    if made is None:
        return torch.zeros(())
    flat = made.movedim(dim, 1).reshape(len(made), groups, -1, made.numel() // (len(made) * made.shape[dim]))
    return flat[..., patches].permute(1, 0, 3, 2).flatten(1, 2).float()

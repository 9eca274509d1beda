"""Sparse: which single weights of a network go, and how far its layers are off without them.

A tensor that several layers read with has one score for each of its weights, the largest of theirs, and is kept or
dropped once. Scores are in the shape of the tensor; what is about rows (`sipp`) is in that of `Columns.weight`,
float[G, O, J, R], of the layer that reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.losses import per_sample_loss
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.certificate import measured_error
from pfpcli.graph.graph import Graph, fetch
from pfpcli.scoring import pfp
from pfpcli.scoring.criteria import WeightCriterion
from pfpcli.scoring.scores import Counter
from pfpcli.sparsity import sipp
from pfpcli.sparsity.weights import Weights, parameter, view_of

# Scores ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What was seen of the weights.

    Attributes:
        score: one for each tensor and in its shape: what the criterion compares.
        largest: for each tensor and each of its readers float[G, O, J, R], the largest shares over patches.
        samples: images looked at.
    """

    score: list[Tensor]
    largest: list[list[Tensor]]
    samples: int


def look(task: Task, found: Sequence[Weights], criterion: WeightCriterion) -> Seen:
    """Score weights; the images pass once, and once more for gradients.

    The largest shares are looked at whatever the criterion is: they are what the error of a layer is bounded by.
    """
    counted = Counter(task.progress)
    task = replace(task, progress=counted)
    with task.groups.labelled.graph.on(task.device):
        largest, mean = (
            {id(reader): _Largest.of(reader, each.tensor, task.device) for each in found for reader in each.readers}
            for _ in range(2)
        )

        def see(reader: Reader, x: Tensor, weight: Tensor) -> None:
            for columns in reader.pieces(x, weight):
                largest[id(reader)].see(sipp.weight_sensitivity(columns, "max"))
                if criterion.score == "mean":
                    mean[id(reader)].see(sipp.weight_sensitivity(columns, "mean"))

        task.walk(see, [reader for each in found for reader in each.readers])
        for one in (*largest.values(), *mean.values()):
            one.found = processes.largest(one.found)
        shares = {"max": largest, "mean": mean}.get(criterion.score)
        if shares is not None:
            score = [_combined(each, [shares[id(reader)].tensor for reader in each.readers]) for each in found]
        elif criterion.score == "gradient":
            score = _gradients(task, found)
        else:
            score = [each.tensor.abs() for each in found]
    return Seen(score, [[largest[id(reader)].tensor for reader in each.readers] for each in found], counted.most)


@dataclass
class _Largest:
    """The largest shares so far: float[G, O, J, R]."""

    found: Tensor

    @classmethod
    def of(cls, reader: Reader, tensor: Tensor, device: torch.device) -> _Largest:
        return cls(torch.zeros_like(reader.matrix(view_of(reader.weight, tensor.detach())).float(), device=device))

    def see(self, values: Tensor) -> None:
        self.found = torch.maximum(self.found, values)

    @property
    def tensor(self) -> Tensor:
        return self.found.cpu()


def _combined(of: Weights, shares: Sequence[Tensor]) -> Tensor:
    """The largest of all readers, in the shape of the tensor."""
    return torch.stack([of.back(r, s) for r, s in zip(of.readers, shares, strict=True)]).amax(0)


def _gradients(task: Task, found: Sequence[Weights]) -> list[Tensor]:
    """|w dL/dw|, the mean over images: every image has a gradient of its own."""
    graph = task.groups.labelled.graph
    leaves = {each.target: each.tensor.detach().to(task.device).requires_grad_() for each in found}
    total = [torch.zeros_like(leaf) for leaf in leaves.values()]
    count = 0
    for images, given in task.images():
        step = graph.fixed_batch or 1
        for first in range(0, len(images), step):
            at = slice(first, first + step)
            outputs = torch.func.functional_call(graph.module, leaves, (images[at],))
            losses = per_sample_loss(outputs, None if given is None else given[at])
            for i, loss in enumerate(losses):
                slopes = torch.autograd.grad(
                    loss, list(leaves.values()), retain_graph=i + 1 < len(losses), allow_unused=True
                )
                count += 1
                for sums, leaf, slope in zip(total, leaves.values(), slopes, strict=True):
                    if slope is not None:
                        sums += (leaf.detach() * slope).abs()
    count = processes.total(count)
    return [(processes.total(sums) / max(1, count)).cpu() for sums in total]


# What stays ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chosen:
    """What becomes of a tensor of weights.

    Attributes:
        factor: float, in its shape: what each weight is multiplied with, 0 where it goes.
        bound: what the error of a layer that reads with it is at most, on the images looked at; None where nothing is
            known. Where weights were drawn it may fail, with the probability delta.
    """

    factor: Tensor
    bound: float | None


def choose(
    found: Sequence[Weights], seen: Seen, criterion: WeightCriterion, budget: int, delta: float, seed: int
) -> list[Chosen]:
    """Decide what stays.

    Args:
        found: the weights.
        seen: their scores.
        criterion: how they are chosen.
        budget: weights that stay, all together.
        delta: probability with which the bound of a drawn row may fail.
        seed: of the draws.
    """
    if criterion.form == "largest":
        return _largest_stay(found, seen, budget)
    return _rows_choose(found, seen, criterion.form == "hybrid", budget, delta, seed)


def _largest_stay(found: Sequence[Weights], seen: Seen, budget: int) -> list[Chosen]:
    used = [each.used for each in found]
    scores = [sipp.rankable(s, each.tensor)[u] for each, s, u in zip(found, seen.score, used, strict=True)]
    chosen = []
    for i, kept in enumerate(sipp.keep_largest(scores, budget)):
        factor = torch.ones_like(found[i].tensor)
        factor[used[i]] = kept.to(factor)
        bounds = [
            sipp.certificate(found[i].there(reader, found[i].tensor), s, found[i].spread(reader, factor) > 0.5).max()
            for reader, s in zip(found[i].readers, seen.largest[i], strict=True)
        ]
        chosen.append(Chosen(factor, float(torch.stack(bounds).max())))
    return chosen


@dataclass(frozen=True)
class _Part:
    """The weights of a tensor that are drawn in the rows of one reader, as that reader's matrix.

    Attributes:
        of: index of the tensor.
        weight, share: float[G, O, J, R]; weights of other parts are 0.
    """

    of: int
    reader: Reader
    weight: Tensor
    share: Tensor
    rows: sipp.Rows


def _parts(found: Sequence[Weights], seen: Seen, delta: float) -> Iterator[_Part]:
    """Every weight in the rows of the first layer that reads with it."""
    for i, each in enumerate(found):
        left = torch.ones_like(each.tensor)
        for reader in each.readers:
            weight = each.there(reader, each.tensor * left)
            if not weight.any():
                continue
            left[each.back(reader, each.spread(reader, torch.ones_like(left))) > 0.5] = 0
            share = each.spread(reader, seen.score[i])
            log = max(pfp.log_term(r.patches, r.kernel, delta) for r in each.readers)
            yield _Part(i, reader, weight, share, sipp.rows(weight, share, log))


def _rows_choose(
    found: Sequence[Weights], seen: Seen, hybrid: bool, budget: int, delta: float, seed: int
) -> list[Chosen]:
    parts = list(_parts(found, seen, delta))
    factors = [torch.ones_like(each.tensor) for each in found]
    bounds: list[float | None] = [0.0] * len(found)
    for i, (part, kept) in enumerate(zip(parts, sipp.allocate([p.rows for p in parts], budget), strict=True)):
        drawn = np.ones(kept.shape, dtype=bool)
        if hybrid:
            drawn = sipp.better_drawn(part.rows, part.weight, part.share, kept)
        generator = np.random.default_rng((seed, i))
        factor = sipp.draw_factors(part.weight, part.share, kept, drawn, generator).to(part.weight.dtype)
        bound = _row_bounds(part, kept, drawn, factor)
        of = found[part.of]
        mine = of.back(part.reader, (part.weight != 0).to(factor)) > 0.5
        factors[part.of][mine] = of.back(part.reader, factor)[mine]
        before = bounds[part.of]
        bounds[part.of] = None if before is None else max(before, bound)
    # a layer that reads with weights which were drawn in the rows of another one: nothing is known about its own
    several = [len(each.readers) > sum(p.of == i for p in parts) for i, each in enumerate(found)]
    return [
        Chosen(factor, None if shared and _is_drawn(factor) else bound)
        for factor, bound, shared in zip(factors, bounds, several, strict=True)
    ]


def _is_drawn(factor: Tensor) -> bool:
    return bool(((factor != 0) & (factor != 1)).any())


def _row_bounds(part: _Part, kept: NDArray[np.int64], drawn: NDArray[np.bool_], factor: Tensor) -> float:
    """The largest bound of a row: that of the draws where it was drawn, otherwise what it dropped."""
    dropped = sipp.certificate(part.weight, part.share, factor != 0).cpu().numpy()
    changed = torch.stack([(part.weight > 0), (part.weight < 0)]) & (factor != 1) & (factor != 0)
    was_drawn = drawn & (kept > 0) & changed.flatten(3).any(3).cpu().numpy()
    return float(np.where(was_drawn, sipp.error_drawn(part.rows.alpha, kept), dropped).max())


def thin(graph: Graph, slicing: Slicing, found: Sequence[Weights], chosen: Sequence[Chosen]) -> None:
    """Put the zeros (and what was re-weighted) into a network; its tensors change in place.

    Args:
        graph: the network, whole or cut.
        slicing: what is left of every tensor in it.
        found: the weights.
        chosen: what becomes of them.
    """
    for each, one in zip(found, chosen, strict=True):
        tensor: Tensor = fetch(graph.module, each.target)
        with torch.no_grad():
            factor = slicing.slice(each.node, one.factor).to(tensor)
            # not the product alone: a negative weight times zero has a sign, and files shrink by zeros that are alike
            tensor.copy_(torch.where(factor == 0, 0.0, tensor * factor))


# What it does ----------------------------------------------------------------------------------------------------


def errors(task: Task, found: Sequence[Weights], chosen: Sequence[Chosen]) -> list[float]:
    """For each tensor the largest error of any output of the layers that read with it, relative to |W| |a|.

    Every layer is looked at on its own: it sees what it saw in the original.
    """
    by_reader = {
        id(reader): (i, each.there(reader, each.tensor * one.factor))
        for i, (each, one) in enumerate(zip(found, chosen, strict=True))
        for reader in each.readers
    }
    largest = [0.0] * len(found)

    def see(reader: Reader, x: Tensor, weight: Tensor) -> None:
        i, new = by_reader[id(reader)]
        for columns in reader.pieces(x, weight):
            largest[i] = max(largest[i], float(measured_error(columns, new.to(columns.weight)).max()))

    with task.groups.labelled.graph.on(task.device):
        task.walk(see, [reader for each in found for reader in each.readers])
    return [processes.largest(error) for error in largest]


def dead_units(groups: Groups, readers: Sequence[Reader], sparse: Graph) -> NDArray[np.bool_]:
    """Units whose channels nothing reads any more: bool[labels].

    They may go without any change, so what statistics are taken across does not count.

    Args:
        groups: the graph's units.
        readers: the layers that read channels.
        sparse: the network with zeros in place.
    """
    read, needed = np.zeros(len(groups.root), dtype=bool), np.zeros(len(groups.root), dtype=bool)
    by_contraction = {id(reader.contraction): reader for reader in readers if reader.has_weights}
    for contraction in groups.labelled.contractions:
        units = groups.root[contraction.labels.numpy()]
        read[units] = True
        reader = by_contraction.get(id(contraction))
        if reader is None:
            needed[units] = True
            continue
        base: Tensor = fetch(sparse.module, str(parameter(reader.weight).target)).detach()
        matrix = reader.matrix(view_of(reader.weight, base))
        # [G, J] are the channels, or several times all of them
        needed[units[(matrix != 0).any(3).any(1).view(-1, len(units)).any(0).numpy()]] = True
    may_go = np.zeros(len(groups.root), dtype=bool)
    for group in groups.prunable:
        may_go[group.units] = not group.inexact
    may_go[list(groups.owned)] = False
    dead: NDArray[np.bool_] = read & ~needed & may_go
    return dead


def channels(groups: Groups, dead: NDArray[np.bool_]) -> int:
    """How many channels dead units stand for."""
    # a group's width is that of one unit of every part
    return sum(int(dead[group.units].sum()) * group.width // len(group.rows) for group in groups.prunable)

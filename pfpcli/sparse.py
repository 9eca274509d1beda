"""Sparse: which single weights of a network go, and how far its layers are off without them.

Every layer with weights that reads channels takes part (`Weights`); whatever else a network has, biases, norms,
depthwise convolutions and frozen layers, stays as it is and counts as it is. A tensor that several layers read with has
one score for each of its weights, the largest of theirs, and is kept or dropped once.

Everything about a weight is in the shape of its tensor; what is about rows (`sipp`) is in that of `Columns.weight`,
float[G, O, J, R], of the layer that reads.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.fx.node import Node, map_arg

from pfpcli import ops, pfp, sipp
from pfpcli.criteria import WeightCriterion
from pfpcli.cut import Cut
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.graph import Graph, fetch, is_tensor, owner
from pfpcli.groups import Groups, matching
from pfpcli.loss import per_sample_loss
from pfpcli.readers import Reader
from pfpcli.score import Counter, Task

# The weights -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Weights:
    """A tensor of weights and the layers that read with it.

    Attributes:
        node: what stands for it in the graph.
        tensor: float[...], as it was.
        readers: the layers; a layer may take a view of it.
    """

    node: Node
    tensor: Tensor
    readers: tuple[Reader, ...]

    @property
    def name(self) -> str:
        """Dotted name of the layer it belongs to."""
        return owner(self.node)

    @property
    def target(self) -> str:
        """Dotted name of the tensor."""
        return str(self.node.target)

    @property
    def used(self) -> Tensor:
        """bool, in the shape of the tensor: what some layer reads with."""
        return torch.stack([self.back(r, self.there(r, torch.ones_like(self.tensor))) for r in self.readers]).any(0)

    def there(self, reader: Reader, values: Tensor) -> Tensor:
        """Weights as the matrix of a reader: float[G, O, J, R]; values in the shape of the tensor."""
        return reader.matrix(_view(reader.weight, values))

    def spread(self, reader: Reader, values: Tensor) -> Tensor:
        """Numbers that belong to weights (no weights themselves) at the places of a reader's matrix."""
        return self.there(reader, values) / self.there(reader, torch.ones_like(values))

    def back(self, reader: Reader, values: Tensor) -> Tensor:
        """Numbers at the places of a reader's matrix, brought to those of the tensor; 0 where the reader takes none."""
        at = self.tensor.to(values.device)
        return ops.into_weight(values, lambda w: self.there(reader, w), at).nan_to_num(0)


def _view(node: Node, base: Tensor) -> Tensor:
    """The view of a parameter that a constant node stands for, taken of another tensor of its shape."""
    if node.op == "get_attr":
        return base
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: _view(n, base))
    viewed: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return viewed


def _parameter(node: Node) -> Node:
    """The parameter that a constant node is a view of; views have one source."""
    while node.op != "get_attr":
        node = node.all_input_nodes[0]
    return node


def weights(groups: Groups, readers: Sequence[Reader], freeze: Sequence[str]) -> list[Weights]:
    """The tensors whose numbers may go, in the order in which they are read.

    Args:
        groups: the graph's units.
        readers: the layers that read channels.
        freeze: dotted-name globs; the tensors of layers that match are left out.

    Raises:
        UnsupportedError: there are none.
    """
    graph = groups.labelled.graph
    frozen = {name for pattern in freeze for name in matching(groups.labelled, pattern)}
    held = {id(graph.tensor(n)) for n in graph.nodes if n.op == "get_attr" and is_tensor(n) and owner(n) in frozen}
    found: dict[int, tuple[Node, list[Reader]]] = {}
    for reader in readers:
        if reader.has_weights:
            node = _parameter(reader.weight)
            tensor = graph.tensor(node)
            if isinstance(tensor, nn.Parameter) and id(tensor) not in held:
                found.setdefault(id(tensor), (node, []))[1].append(reader)
    if not found:
        raise UnsupportedError(
            f"nothing can be sparsified: no layer with weights {'is left' if freeze else 'reads channels'}",
            "name fewer layers with --freeze" if freeze else "see `pfp inspect MODEL`",
        )
    return [Weights(node, graph.tensor(node).detach(), tuple(group)) for node, group in found.values()]


@dataclass(frozen=True)
class Amount:
    """How many numbers a network has, and how many may stay.

    Attributes:
        total: parameters.
        present: parameters that are not zero.
        fixed: those of them that stay in any case.
        wanted: parameters that are to be left.
    """

    total: int
    present: int
    fixed: int
    wanted: int

    @property
    def budget(self) -> int:
        """Weights that may stay."""
        return self.wanted - self.fixed


def amount(graph: Graph, found: Sequence[Weights], keep: float) -> Amount:
    """What a budget comes to.

    Args:
        graph: the network.
        found: the weights that may go.
        keep: fraction of the parameters that stays nonzero.

    Raises:
        BudgetError: what stays in any case is more.
    """
    parameters = stored(graph)
    total, present = sum(p.numel() for p in parameters), nonzeros(graph)
    fixed = present - sum(int((each.tensor[each.used] != 0).sum()) for each in found)
    wanted = math.floor(keep * total + 1e-9)
    if wanted <= fixed:
        least = math.ceil(1000 * (fixed + 1) / total) / 1000
        raise BudgetError(
            f"--keep {keep:g}: not reachable; {fixed:,} of the {total:,} parameters are no weights that may go "
            "(biases, norms, frozen layers)",
            f"use `--keep {least:.3f}` or more",
        )
    return Amount(total, present, fixed, wanted)


def stored(graph: Graph) -> list[Tensor]:
    """The parameters of a network, each once."""
    found = (graph.tensor(n) for n in graph.nodes if n.op == "get_attr" and is_tensor(n))
    return list({id(t): t.detach() for t in found if isinstance(t, nn.Parameter)}.values())


def nonzeros(graph: Graph) -> int:
    """How many of a network's parameters are not zero."""
    return sum(int((p != 0).sum()) for p in stored(graph))


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
        largest = {id(reader): _Largest() for each in found for reader in each.readers}
        mean = {key: _Largest() for key in largest}

        def see(reader: Reader, x: Tensor, weight: Tensor) -> None:
            for columns in reader.pieces(x, weight):
                largest[id(reader)].see(sipp.weight_sensitivity(columns, "max"))
                if criterion.score == "mean":
                    mean[id(reader)].see(sipp.weight_sensitivity(columns, "mean"))

        task.walk(see, [reader for each in found for reader in each.readers])
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
    """The largest numbers so far."""

    found: Tensor | None = None

    def see(self, values: Tensor) -> None:
        self.found = values if self.found is None else torch.maximum(self.found, values)

    @property
    def tensor(self) -> Tensor:
        assert self.found is not None
        return self.found.cpu()


def _combined(of: Weights, shares: Sequence[Tensor]) -> Tensor:
    """The largest of all readers, in the shape of the tensor."""
    return torch.stack([of.back(r, s) for r, s in zip(of.readers, shares, strict=True)]).amax(0)


def _gradients(task: Task, found: Sequence[Weights]) -> list[Tensor]:
    """|w dL/dw|, the mean over images: every image has a gradient of its own."""
    graph = task.groups.labelled.graph
    leaves = {each.target: each.tensor.to(task.device).requires_grad_() for each in found}
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
    return [(sums / max(1, count)).cpu() for sums in total]


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
        factor = sipp.factors(part.weight, part.share, kept, drawn, generator).to(part.weight.dtype)
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


def thin(graph: Graph, kept: Cut, found: Sequence[Weights], chosen: Sequence[Chosen]) -> None:
    """Put the zeros (and what was re-weighted) into a network; its tensors change in place.

    Args:
        graph: the network, whole or cut.
        kept: what is left of every tensor in it.
        found: the weights.
        chosen: what becomes of them.
    """
    for each, one in zip(found, chosen, strict=True):
        tensor: Tensor = fetch(graph.module, each.target)
        with torch.no_grad():
            factor = kept.slice(each.node, one.factor).to(tensor)
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
            largest[i] = max(largest[i], float(sipp.measured_error(columns, new.to(columns.weight)).max()))

    with task.groups.labelled.graph.on(task.device):
        task.walk(see, [reader for each in found for reader in each.readers])
    return largest


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
        base: Tensor = fetch(sparse.module, str(_parameter(reader.weight).target)).detach()
        matrix = reader.matrix(_view(reader.weight, base))
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

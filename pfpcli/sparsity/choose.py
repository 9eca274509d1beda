"""Choose: the weights that stay, from their scores and a budget.

Scores and factors are in the shape of the tensor. Rows (`rows`) are in the shape of `Columns.weight` of the layer that
reads with it, float[G, O, J, R].
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.channels.reading_layers import Reader
from pfpcli.scoring import pfp
from pfpcli.scoring.criteria import WeightCriterion
from pfpcli.sparsity import sipp
from pfpcli.sparsity.row_counts import allocate
from pfpcli.sparsity.rows import Rows, better_drawn, draw_factors, error_drawn, rows_of
from pfpcli.sparsity.weight_scores import WeightScores
from pfpcli.sparsity.weights import Weights


@dataclass(frozen=True)
class Chosen:
    """The factors of one tensor of weights.

    Attributes:
        factor: float, in the shape of the tensor: the factor of each weight, 0 for a dropped one.
        bound: the largest error, on the scoring images, of a layer that reads with the tensor; None if it is not known.
            If weights were drawn, the bound may fail with probability delta.
    """

    factor: Tensor
    bound: float | None


def choose(
    found: Sequence[Weights], scores: WeightScores, criterion: WeightCriterion, budget: int, delta: float, seed: int
) -> list[Chosen]:
    """Choose the weights that stay.

    Args:
        found: the tensors of weights.
        scores: their scores.
        criterion: its form says how weights are chosen.
        budget: the number of weights that stay, in all tensors together.
        delta: probability with which the bound of a drawn row may fail.
        seed: of the draws.
    """
    if criterion.form == "largest":
        return _keep_largest_weights(found, scores, budget)
    return _choose_by_row(found, scores, criterion.form == "hybrid", budget, delta, seed)


def rankable(scores: Tensor, weight: Tensor) -> Tensor:
    """Return scores for `keep_largest`: -inf for weights that are zero already, which use up no budget."""
    return torch.where(weight != 0, scores, -torch.inf)


def keep_largest(scores: Sequence[Tensor], budget: int) -> list[Tensor]:
    """Return the elements with the largest scores of all layers: bool, one tensor for each of scores.

    Args:
        scores: a tensor for each layer, of any shape; an element with -inf never stays.
        budget: the most elements that stay. Of equal scores, the first layers and the first indices come first.
    """
    flat = np.concatenate([layer.detach().cpu().flatten().numpy() for layer in scores])
    budget = min(budget, int((flat > -np.inf).sum()))
    kept = np.zeros(len(flat), dtype=bool)
    if budget > 0:
        least = np.partition(flat, len(flat) - budget)[len(flat) - budget]
        np.greater(flat, least, out=kept)
        kept[np.flatnonzero(flat == least)[: budget - int(kept.sum())]] = True
    parts = np.split(kept, np.cumsum([layer.numel() for layer in scores])[:-1])
    return [torch.from_numpy(part).view(layer.shape) for part, layer in zip(parts, scores, strict=True)]


def _keep_largest_weights(found: Sequence[Weights], scores: WeightScores, budget: int) -> list[Chosen]:
    """Keep the weights with the largest scores of all tensors."""
    used = [each.used for each in found]
    ranked = [rankable(s, each.tensor)[u] for each, s, u in zip(found, scores.score, used, strict=True)]
    chosen = []
    for i, kept in enumerate(keep_largest(ranked, budget)):
        factor = torch.ones_like(found[i].tensor)
        factor[used[i]] = kept.to(factor)
        bounds = [
            sipp.certificate(found[i].there(reader, found[i].tensor), s, found[i].spread(reader, factor) > 0.5).max()
            for reader, s in zip(found[i].readers, scores.largest[i], strict=True)
        ]
        chosen.append(Chosen(factor, float(torch.stack(bounds).max())))
    return chosen


@dataclass(frozen=True)
class _Part:
    """The weights of a tensor that are drawn in the rows of one layer, in the shape of that layer's matrix.

    Attributes:
        of: index of the tensor.
        reader: the layer.
        weight, share: float[G, O, J, R]; weights of other parts are 0.
        rows: the rows.
    """

    of: int
    reader: Reader
    weight: Tensor
    share: Tensor
    rows: Rows


def _parts(found: Sequence[Weights], scores: WeightScores, delta: float) -> Iterator[_Part]:
    """Yield every weight once, in the rows of the first layer that reads with it."""
    for i, each in enumerate(found):
        left = torch.ones_like(each.tensor)
        for reader in each.readers:
            weight = each.there(reader, each.tensor * left)
            if not weight.any():
                continue
            left[each.back(reader, each.spread(reader, torch.ones_like(left))) > 0.5] = 0
            share = each.spread(reader, scores.score[i])
            log = max(pfp.log_term(r.patches, r.kernel, delta) for r in each.readers)
            yield _Part(i, reader, weight, share, rows_of(weight, share, log))


def _choose_by_row(
    found: Sequence[Weights], scores: WeightScores, hybrid: bool, budget: int, delta: float, seed: int
) -> list[Chosen]:
    """Let each row draw its weights; in the hybrid form it may keep its largest instead."""
    parts = list(_parts(found, scores, delta))
    factors = [torch.ones_like(each.tensor) for each in found]
    bounds: list[float | None] = [0.0] * len(found)
    for i, (part, kept) in enumerate(zip(parts, allocate([p.rows for p in parts], budget), strict=True)):
        drawn = np.ones(kept.shape, dtype=bool)
        if hybrid:
            drawn = better_drawn(part.rows, part.weight, part.share, kept)
        generator = np.random.default_rng((seed, i))
        factor = draw_factors(part.weight, part.share, kept, drawn, generator).to(part.weight.dtype)
        bound = _row_bounds(part, kept, drawn, factor)
        of = found[part.of]
        mine = of.back(part.reader, (part.weight != 0).to(factor)) > 0.5
        factors[part.of][mine] = of.back(part.reader, factor)[mine]
        before = bounds[part.of]
        bounds[part.of] = None if before is None else max(before, bound)
    # a layer whose weights were drawn in the rows of another layer has no bound
    several = [len(each.readers) > sum(p.of == i for p in parts) for i, each in enumerate(found)]
    return [
        Chosen(factor, None if shared and _is_drawn(factor) else bound)
        for factor, bound, shared in zip(factors, bounds, several, strict=True)
    ]


def _is_drawn(factor: Tensor) -> bool:
    """Whether some weight was drawn: its factor is neither 0 nor 1."""
    return bool(((factor != 0) & (factor != 1)).any())


def _row_bounds(part: _Part, kept: NDArray[np.int64], drawn: NDArray[np.bool_], factor: Tensor) -> float:
    """Return the largest bound of a row: err_rand if the row was drawn, otherwise the sum of the dropped shares."""
    dropped = sipp.certificate(part.weight, part.share, factor != 0).cpu().numpy()
    changed = torch.stack([(part.weight > 0), (part.weight < 0)]) & (factor != 1) & (factor != 0)
    was_drawn = drawn & (kept > 0) & changed.flatten(3).any(3).cpu().numpy()
    return float(np.where(was_drawn, error_drawn(part.rows.alpha, kept), dropped).max())

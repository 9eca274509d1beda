"""Sensitivity-informed pruning of single weights: their sensitivities, how many each row keeps, and which.

    s_ojr = max over inputs x in S of   max or mean over patches p of   w_ojr a_jrp / sum_k,r w_okr a_krp

A row is an output o and a sign: the weights of one sign that one output has. Numerator and denominator are of one row.

    symbol      here                meaning
    S_i         Rows.total          sum of the sensitivities of row i
    alpha_i     Rows.alpha          S_i * 2 C ln(8 (P + 1) kappa / delta)
    x_i         allocate            weights row i keeps
    err_rand    error_drawn         1/2 (A + sqrt(A^2 + 6 A)),  A = alpha_i / (3 x_i)
    err_det     error_dropped       C times the sum of the s of row i that are not among its x_i largest
    l_i         1 / outputs         what the error of a row of a layer counts

There are three forms. *Deterministic*: the weights with the largest sensitivities (mean over patches) of all layers
stay as they are. *Random*: the rows get the x_i that minimise sum_i l_i err_rand(x_i), 0 <= x_i <= the weights of the
row, sum_i x_i <= budget; each row draws its weights from q = s / S_i and reweights them (sensitivities: max over
patches). *Hybrid*: the x_i of the random form, and each row is drawn or cut off, whichever has the smaller error.

Sources: Baykal et al., Sensitivity-Informed Provable Pruning of Neural Networks, SIAM J. Math. Data Sci. 4(1), 2022,
and the authors' code (torchprune), which the constants and the handling of signs and small denominators follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.channels.rules import Columns
from pfpcli.scoring import pfp

# Sensitivities ---------------------------------------------------------------------------------------------------


def weight_sensitivity(columns: Columns, patches: str) -> Tensor:
    """Largest share of each weight in the part of its output that has its sign: float[G, O, J, R], from 0 to 1.

    Over several batches it is the maximum over them. Inputs of mixed sign are two data points. A share whose
    denominator is at most `pfp.EPSILON` counts as 0, in a mean too.

    Args:
        columns: the layer as a matrix product; x float[N, G, J, R, P], weight float[G, O, J, R].
        patches: over the patches of an input: "max", which the guarantees need, or "mean", which the authors take for
            the deterministic form. Over inputs it is always the largest.
    """
    reduce = {"max": _largest_ratio, "mean": _largest_mean_ratio}[patches]
    weight = columns.weight.flatten(2)
    largest = torch.zeros_like(weight)
    for part in pfp.halves(columns.x.flatten(2, 3)):
        for positive in (weight.clamp(min=0), weight.neg().clamp(min=0)):
            # what the input brings can wait for the weight: it is the same at all patches
            torch.maximum(largest, reduce(part, positive) * positive, out=largest)
    return largest.view_as(columns.weight)


def _largest_mean_ratio(x: Tensor, weight: Tensor) -> Tensor:
    """Largest of all inputs' mean over p of a / z, float[G, O, K]; x float[N, G, K, P], weight float[G, O, K] >= 0."""
    largest = torch.zeros_like(weight)
    for a in x:
        torch.maximum(largest, pfp.inverse(weight @ a) @ a.mT, out=largest)
    return largest / x.shape[-1]


def _largest_ratio(x: Tensor, weight: Tensor) -> Tensor:
    """As `_largest_mean_ratio`, the largest over patches: a block of outputs and patches at a time."""
    a = _side_by_side(x)
    inverse = pfp.inverse(weight @ a)
    groups, size, positions = a.shape
    largest = torch.zeros_like(weight)
    # the longer of the two dimensions goes last, along which a CPU is fast
    flat = size > positions
    if flat:
        a = a.mT.contiguous()
    most = pfp.block(x.device)
    width = max(1, min(positions, most // size))
    count = max(1, most // (size * width))
    some = max(1, count // weight.shape[1])  # groups at a time, where they are small
    for lowest in range(0, groups, some):
        of = slice(lowest, lowest + some)
        for first in range(0, weight.shape[1], count):
            outputs = slice(first, first + count)
            best = largest[of, outputs]
            for start in range(0, positions, width):
                at = slice(start, start + width)
                if flat:
                    ratios = (a[of, None, at] * inverse[of, outputs, at, None]).amax(2)
                else:
                    ratios = (a[of, None, :, at] * inverse[of, outputs, None, at]).amax(3)
                torch.maximum(best, ratios, out=best)
    return largest


def _side_by_side(x: Tensor) -> Tensor:
    """The patches of all inputs as those of one: float[G, K, N * P]; x float[N, G, K, P]."""
    return x.permute(1, 2, 0, 3).flatten(2)


# The largest of all ----------------------------------------------------------------------------------------------


def rankable(scores: Tensor, weight: Tensor) -> Tensor:
    """Scores for `keep_largest`: those of weights that are zero already are -inf, so that no budget goes to them."""
    return torch.where(weight != 0, scores, -torch.inf)


def magnitude(weight: Tensor) -> Tensor:
    """|w| as the score of a weight, for `keep_largest`."""
    return rankable(weight.abs(), weight)


def keep_largest(scores: Sequence[Tensor], budget: int) -> list[Tensor]:
    """Which elements stay if the largest of all layers do: bool, one tensor for each of scores.

    Args:
        scores: a tensor for each layer, of any shape; -inf is never kept.
        budget: how many stay, at most. Among equal ones it is those of the first layers and, there, indices.
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


# Rows, their errors and their budgets ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """The rows of a layer: [0] the positive weights of an output, [1] the negative ones.

    Attributes:
        total: float64[2, G, O], S_i.
        live: int64[2, G, O], weights that can be drawn: more than `pfp.EPSILON` of the row's total is theirs.
        present: int64[2, G, O], weights that are not zero.
        log: `pfp.log_term` of the layer.
    """

    total: NDArray[np.float64]
    live: NDArray[np.int64]
    present: NDArray[np.int64]
    log: float

    @property
    def alpha(self) -> NDArray[np.float64]:
        """float64[2, G, O], S_i * 2 C ln(8 (P + 1) kappa / delta)."""
        alpha: NDArray[np.float64] = self.total * self.log
        return alpha


def rows(weight: Tensor, sensitivity: Tensor, log: float) -> Rows:
    """The rows of a layer.

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R], with the largest share over patches.
        log: `pfp.log_term` of the layer.
    """
    side = torch.stack([weight > 0, weight < 0]).flatten(3)
    s = torch.where(side, sensitivity.double().flatten(2), 0.0)
    total = s.sum(3, keepdim=True)
    live = (s > pfp.EPSILON * total).sum(3)
    return Rows(total[..., 0].cpu().numpy(), live.cpu().numpy(), side.sum(3).cpu().numpy(), log)


def error_drawn(alpha: NDArray[np.float64], count: NDArray[np.float64] | NDArray[np.int64]) -> NDArray[np.float64]:
    """err_rand of rows that draw so many weights; infinite for none.

    Args:
        alpha: float64[...], `Rows.alpha`.
        count: [...], weights drawn.
    """
    a = np.divide(alpha, 3 * count, out=np.full_like(alpha, np.inf), where=count > 0)
    error: NDArray[np.float64] = (a + np.sqrt(a * a + 6 * a)) / 2
    return error


def error_dropped(weight: Tensor, sensitivity: Tensor, kept: NDArray[np.int64]) -> NDArray[np.float64]:
    """err_det of the rows of a layer that keep so many of their weights: float64[2, G, O].

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: int64[2, G, O], weights kept, the most sensitive ones.
    """
    error = np.zeros(kept.shape)
    for row, _, s in _rows_in_order(weight, sensitivity):
        error[row] = pfp.C * s[kept[row] :].sum()
    return error


def optimal_counts(
    alpha: NDArray[np.float64], leading: NDArray[np.float64], most: NDArray[np.int64], budget: int
) -> NDArray[np.float64]:
    """The x that minimise sum_i l_i err_rand(x_i) with 0 <= x_i <= most_i and sum_i x_i <= budget: float64[n].

    Each term is convex and falls, so there is one multiplier at which l_i times the slope of every error is the same,
    but for the rows that are full, and the budget is spent. It is found by bisection; x_i follows from it by

        x = alpha (3 + 2 e) / (6 e^2)   the inverse of e = err_rand(x)
        e^3 = k (3 + e)                 k = multiplier * alpha / (3 l), from l * -de/dx = multiplier

    Args:
        alpha: float64[n], at least 0.
        leading: float64[n], l_i, greater than 0.
        most: int64[n]; 0 where alpha is 0.
        budget: weights all rows may keep together.
    """
    if budget >= most.sum():
        return most.astype(np.float64)
    counts = np.zeros(len(alpha))
    if budget <= 0:
        return counts
    where = alpha > 0
    alpha, leading, most = alpha[where], leading[where], most[where]

    def at(multiplier: float) -> NDArray[np.float64]:
        k = multiplier * alpha / (3 * leading)
        # Newton's method on e^3 - k e - 3 k: convex, and from above its only positive root it comes down to it
        e = np.sqrt(k) + np.cbrt(3 * k)
        for _ in range(12):
            e -= (e**3 - k * e - 3 * k) / (3 * e**2 - k)
        x: NDArray[np.float64] = np.minimum(most, alpha * (3 + 2 * e) / (6 * e**2))
        return x

    low = high = 1.0
    while at(low).sum() < budget:
        low /= 4
    while at(high).sum() > budget:
        high *= 4
    for _ in range(100):
        middle = float(np.sqrt(low * high))
        if at(middle).sum() > budget:
            low = middle
        else:
            high = middle
    counts[where] = at(high)
    return counts


def allocate(layers: Sequence[Rows], budget: int) -> list[NDArray[np.int64]]:
    """How many weights each row keeps, for the random and the hybrid form: int64[2, G, O] for each layer.

    The numbers of `optimal_counts` are rounded down, and what this leaves goes, one each, to the rows that lost most by
    it (the first of equal ones), so that the sum is the budget; torchprune rounds all of them up and exceeds it. A
    budget that is larger than the number of live weights fills up the first rows with weights that never mattered:
    what asks for everything keeps everything.

    Args:
        layers: the rows of each layer.
        budget: weights all layers may keep together.
    """
    alpha = np.concatenate([layer.alpha.ravel() for layer in layers])
    live = np.concatenate([layer.live.ravel() for layer in layers])
    present = np.concatenate([layer.present.ravel() for layer in layers])
    leading = np.concatenate([np.full(layer.total.size, 2 / layer.total.size) for layer in layers])
    counts = optimal_counts(alpha, leading, live, budget)
    kept = np.floor(counts).astype(np.int64)
    by_loss = np.argsort(kept - counts, kind="stable")
    kept[by_loss[: max(0, min(budget, int(live.sum())) - int(kept.sum()))]] += 1
    room = present - live
    kept += np.clip(budget - live.sum() - (room.cumsum() - room), 0, room)
    parts = np.split(kept, np.cumsum([layer.total.size for layer in layers])[:-1])
    return [part.reshape(layer.total.shape) for part, layer in zip(parts, layers, strict=True)]


def better_drawn(of: Rows, weight: Tensor, sensitivity: Tensor, kept: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which rows the hybrid form draws, because err_rand is smaller than err_det: bool[2, G, O].

    Args:
        of: the rows of the layer.
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: int64[2, G, O], as `allocate` returns it.
    """
    return error_drawn(of.alpha, kept) < error_dropped(weight, sensitivity, kept)


# What becomes of a layer -----------------------------------------------------------------------------------------


def draw_factors(
    weight: Tensor,
    sensitivity: Tensor,
    kept: NDArray[np.int64],
    drawn: NDArray[np.bool_],
    generator: np.random.Generator,
) -> Tensor:
    """What each weight is multiplied with: float64[G, O, J, R], 0 where it goes.

    A row that is not drawn keeps its most sensitive weights as they are (the first of equal ones); so does one that may
    keep all its live weights, which has nothing to gain from chance. Any other draws until the expected number of
    distinct weights is what it may keep (`pfp.draws_for`), so that a little more than that is kept on average. A weight
    drawn c of m times is multiplied with c / (m q), which is 1 on average; draws that happen to leave out no weight of
    a row are not used, and the row stays as it is. Weights that are not live are never drawn.

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: int64[2, G, O], as `allocate` returns it.
        drawn: bool[2, G, O], the rows that are drawn.
        generator: decides the draws.
    """
    found = np.zeros(weight.shape).reshape(*weight.shape[:2], -1)
    for row, places, s in _rows_in_order(weight, sensitivity):
        live = int((s > pfp.EPSILON * s.sum()).sum())
        factor = np.zeros(len(places))
        if drawn[row] and 0 < kept[row] < live:
            q = s[:live] / s[:live].sum()
            draws = pfp.draws_for(q, int(kept[row]))
            counts = generator.multinomial(draws, q)
            factor[:live] = counts / (draws * q)
            if factor.all():
                factor[:] = 1
        else:
            factor[: kept[row]] = 1
        found[row[1], row[2], places] = factor
    return torch.from_numpy(found).view(weight.shape)


def _rows_in_order(
    weight: Tensor, sensitivity: Tensor
) -> Iterator[tuple[tuple[int, int, int], NDArray[np.int64], NDArray[np.float64]]]:
    """For each row (sign, g, o) the places of its weights among J * R and their sensitivities, the largest first."""
    w, s = (each.detach().cpu().flatten(2).numpy() for each in (weight, sensitivity))
    for sign, side in enumerate((w > 0, w < 0)):
        for g, o in np.ndindex(w.shape[:2]):
            places = np.flatnonzero(side[g, o])
            found = s[g, o, places].astype(np.float64)
            order = np.argsort(-found, kind="stable")
            yield (sign, g, o), places[order], found[order]


def certificate(weight: Tensor, sensitivity: Tensor, kept: Tensor) -> Tensor:
    """The sum of the sensitivities each row drops: float64[2, G, O]; of a layer, it is the largest.

    With the largest shares over patches, and what stays left as it is, no output loses more than this part of what its
    weights of that sign give, at any patch of any of the inputs the sensitivities are from (positive and negative parts
    each on their own). So the error of the output, as `measured_error` has it, is at most the larger of its two rows'.

    Args:
        weight: float[G, O, J, R].
        sensitivity: float[G, O, J, R].
        kept: bool[G, O, J, R], the weights that stay.
    """
    lost = torch.where(kept.to(sensitivity.device), 0.0, sensitivity.double())
    return torch.stack([torch.where(side, lost, 0.0).flatten(2).sum(2) for side in (weight > 0, weight < 0)])

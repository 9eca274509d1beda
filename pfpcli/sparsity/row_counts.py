"""Row counts: how many weights each row keeps, for the random and the hybrid form of SiPP."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pfpcli.sparsity.rows import Rows

#: Steps of Newton's method, and of the bisection.
_NEWTON, _BISECTION = 12, 100


def optimal_counts(
    alpha: NDArray[np.float64], leading: NDArray[np.float64], most: NDArray[np.int64], budget: int
) -> NDArray[np.float64]:
    """Return the x that minimise sum_i l_i err_rand(x_i) with 0 <= x_i <= most_i and sum_i x_i <= budget: float64[n].

    Each term is convex and falls with x_i. So there is one multiplier that l_i times the slope of every error equals,
    but for the rows with x_i = most_i, and the budget is used up. Bisection finds it; x_i follows from it by

        x = alpha (3 + 2 e) / (6 e^2)   the inverse of e = err_rand(x)
        e^3 = k (3 + e)                 k = multiplier * alpha / (3 l), from l * -de/dx = multiplier

    Args:
        alpha: float64[n], at least 0.
        leading: float64[n], l_i, greater than 0.
        most: int64[n]; 0 where alpha is 0.
        budget: the most weights of all rows together.
    """
    if budget >= most.sum():
        return most.astype(np.float64)
    counts = np.zeros(len(alpha))
    if budget <= 0:
        return counts
    where = alpha > 0
    alpha, leading, most = alpha[where], leading[where], most[where]
    low = high = 1.0
    while _counts_at(low, alpha, leading, most).sum() < budget:
        low /= 4
    while _counts_at(high, alpha, leading, most).sum() > budget:
        high *= 4
    for _ in range(_BISECTION):
        middle = float(np.sqrt(low * high))
        if _counts_at(middle, alpha, leading, most).sum() > budget:
            low = middle
        else:
            high = middle
    counts[where] = _counts_at(high, alpha, leading, most)
    return counts


def _counts_at(
    multiplier: float, alpha: NDArray[np.float64], leading: NDArray[np.float64], most: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Return the x of one multiplier; see `optimal_counts`."""
    k = multiplier * alpha / (3 * leading)
    # Newton's method on e^3 - k e - 3 k, which is convex, starts above its only positive root and falls towards it
    e = np.sqrt(k) + np.cbrt(3 * k)
    for _ in range(_NEWTON):
        e -= (e**3 - k * e - 3 * k) / (3 * e**2 - k)
    x: NDArray[np.float64] = np.minimum(most, alpha * (3 + 2 * e) / (6 * e**2))
    return x


def allocate(layers: Sequence[Rows], budget: int) -> list[NDArray[np.int64]]:
    """Return how many weights each row keeps: int64[2, G, O] for each layer.

    The numbers of `optimal_counts` are rounded down. The rest of the budget goes, one weight each, to the rows that
    lost most by it (the first of equal ones), so that the sum is the budget. torchprune rounds all of them up and
    exceeds the budget. If the budget exceeds the number of live weights, the first rows keep weights that are not live,
    so that a budget for everything keeps everything.

    Args:
        layers: the rows of each layer.
        budget: the most weights of all layers together.
    """
    alpha = np.concatenate([layer.alpha.ravel() for layer in layers])
    live = np.concatenate([layer.live.ravel() for layer in layers])
    present = np.concatenate([layer.present.ravel() for layer in layers])
    leading = np.concatenate([np.full(layer.total.size, 2 / layer.total.size) for layer in layers])
    counts = optimal_counts(alpha, leading, live, budget)
    kept = np.floor(counts).astype(np.int64)
    by_loss = np.argsort(kept - counts, kind="stable")
    kept[by_loss[: max(0, min(budget, int(live.sum())) - int(kept.sum()))]] += 1
    not_live = present - live
    kept += np.clip(budget - live.sum() - (not_live.cumsum() - not_live), 0, not_live)
    parts = np.split(kept, np.cumsum([layer.total.size for layer in layers])[:-1])
    return [part.reshape(layer.total.shape) for part, layer in zip(parts, layers, strict=True)]

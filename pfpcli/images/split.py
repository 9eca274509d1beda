"""Split: divide samples at random and keep the proportions of the classes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def split(
    count: int, labels: NDArray[np.int64] | None, n_score: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split samples into scoring samples and other samples.

    Args:
        count: N, the number of samples.
        labels: int64[N], or None.
        n_score: the number of scoring samples; all N if there are fewer.
        seed: the same seed gives the same split.

    Returns:
        The indices int64[min(n_score, N)] and int64[M]. Every contiguous part of either array has the proportions of
        the classes, as closely as its length allows.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        # The k-th of n samples of a class stands at (k + ½) / n, so classes advance together along the order.
        position = np.empty(count)
        for label in np.unique(labels):
            members = np.flatnonzero(labels[order] == label)
            position[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(position, kind="stable")]
    return order[:n_score], order[n_score:]

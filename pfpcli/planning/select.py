"""Select: which channels of a group stay, once it is known how many; and with what weight, where they are drawn.

PFP has three forms: keep the largest; draw channels by their sensitivity and re-weight what was drawn, so that every
output is right on average; or keep those that would certainly be drawn and draw the rest.

Source: the authors' code (torchprune, PFPNet, PFPNetRand, PFPNetTop).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli.scoring import pfp

#: Draws that are made at most; a channel that none of so many has met is kept as it is, if it has to be kept.
MOST_DRAWS = 1 << 20


@dataclass(frozen=True)
class Draws:
    """So many draws, m, from scores with this sum, S."""

    count: int
    total: float


@dataclass(frozen=True)
class Selection:
    """What stays of a group.

    Attributes:
        kept: int64[count], indices of the steps that stay.
        scale: float64[count], what the layers that read them multiply them with.
        draws: how they were drawn, None where nothing was.
    """

    kept: NDArray[np.int64]
    scale: NDArray[np.float64]
    draws: Draws | None = None


def largest(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """The first ones.

    Args:
        scores: float64[n], in descending order but for the first.
        protected: so many of the first stay in any case.
        count: how many stay.
        rng: unused.
    """
    return Selection(np.arange(count), np.ones(count))


def sampled(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """Drawn with probabilities q = s / sum of s, and re-weighted by c / (m q), c how often one was drawn in m draws.

    m is the number of draws in which `count` distinct ones are expected, moved by as little as it takes to meet exactly
    so many: a budget is met exactly. Arguments as in `largest`; protected ones that were not drawn keep their weight.
    """
    return _drawn(scores, protected, count, rng)


def mixed(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """Those with q >= 1 / m as they are, m as in `sampled`; the others drawn, among themselves."""
    q = _probabilities(scores)
    draws = pfp.draws_for(q, count)
    certain = min(count, int((q >= 1 / draws).sum())) if draws else 0
    # protected ones may precede larger ones: what is certain is a set, so put it first
    order = np.argsort(-scores, kind="stable")
    fixed = np.union1d(order[:certain], np.arange(min(protected, count)))[:count]
    rest = np.setdiff1d(np.arange(len(scores)), fixed)
    drawn = _drawn(scores[rest], 0, count - len(fixed), rng)
    kept = np.concatenate([fixed, rest[drawn.kept]])
    return Selection(kept, np.concatenate([np.ones(len(fixed)), drawn.scale]), drawn.draws)


SELECTIONS: dict[str, Callable[[NDArray[np.float64], int, int, np.random.Generator], Selection]] = {
    "largest": largest,
    "sampled": sampled,
    "mixed": mixed,
}


def _probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    floored = np.maximum(scores, pfp.FLOOR)
    return floored / floored.sum()  # type: ignore[no-any-return]


def _drawn(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    if count in (0, len(scores)):  # nothing is left to chance
        return Selection(np.arange(count), np.ones(count))
    q, total = _probabilities(scores), float(scores.sum())
    wanted = pfp.draws_for(q, count)
    stream = _stream(q, count, wanted, rng)
    first = np.full(len(q), len(stream))
    met, at = np.unique(stream, return_index=True)
    first[met] = at
    is_protected = np.arange(len(q)) < protected
    kept = np.lexsort((first, ~is_protected))[:count]
    others = np.delete(first, kept)
    least = int(max(np.where(is_protected[kept] | (first[kept] == len(stream)), 0, first[kept] + 1)))
    draws = max(1, least, min(wanted, int(others.min())))
    counts = np.bincount(stream[:draws], minlength=len(q))[kept]
    return Selection(kept, np.where(counts > 0, counts / (draws * q[kept]), 1.0), Draws(draws, total))


def _stream(q: NDArray[np.float64], count: int, wanted: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draws, as many as are wanted and as it takes to meet so many distinct ones, if that is possible at all."""
    stream = np.zeros(0, np.int64)
    while len(stream) < MOST_DRAWS and (len(stream) < wanted or len(np.unique(stream)) < count):
        more = min(MOST_DRAWS, max(wanted, 2 * len(stream), count)) - len(stream)
        stream = np.concatenate([stream, rng.choice(len(q), size=more, p=q)])
    return stream

"""Select: which positions of a group stay, once their number is known, and the weight of those that are sampled.

PFP has three forms. It keeps the largest scores; or it draws channels with probabilities in proportion to their
sensitivities and re-weights the drawn channels, so that every output is right on average; or it keeps the channels that
would almost certainly be drawn, and draws the rest.

Source: the authors' code (torchprune, PFPNet, PFPNetRand, PFPNetTop).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pfpcli.registry import register
from pfpcli.scoring import pfp

#: Draws that are made at most. A channel that has to stay and is not among them keeps its weight.
MOST_DRAWS = 1 << 20


@dataclass(frozen=True)
class Draws:
    """How the units of a group were drawn.

    Attributes:
        count: m, the number of draws.
        total: S, the sum of the scores that were drawn from.
    """

    count: int
    total: float


@dataclass(frozen=True)
class Selection:
    """The positions of a group that stay.

    Attributes:
        kept: int64[count], indices of the positions.
        scale: float64[count], the factor by which the layers that read a position multiply their weights.
        draws: how the positions were drawn; None if none were.
    """

    kept: NDArray[np.int64]
    scale: NDArray[np.float64]
    draws: Draws | None = None


#: `select(scores, protected, count, rng)`; see `largest` for the arguments.
Select = Callable[[NDArray[np.float64], int, int, np.random.Generator], Selection]


def largest(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """Keep the first positions.

    Args:
        scores: float64[n], the protected positions first, the others in descending order.
        protected: the number of protected positions, which always stay.
        count: the number of positions that stay.
        rng: unused.
    """
    return Selection(np.arange(count), np.ones(count))


def sampled(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """Draw with probabilities q = s / sum of s, and re-weight by c / (m q), where c of m draws gave the position.

    m is the number of draws in which `count` distinct positions are expected, adjusted as little as possible so that
    exactly `count` are drawn: the budget is met exactly. Arguments as in `largest`. Protected positions that were not
    drawn keep their weight.
    """
    return _drawn(scores, protected, count, rng)


def mixed(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """Keep the positions with q >= 1 / m, m as in `sampled`, and draw the others among themselves."""
    q = _probabilities(scores)
    draws = pfp.draws_for(q, count)
    certain = min(count, int((q >= 1 / draws).sum())) if draws else 0
    # protected positions may come before ones with larger scores, so sort by score to find the certain ones
    order = np.argsort(-scores, kind="stable")
    fixed = np.union1d(order[:certain], np.arange(min(protected, count)))[:count]
    rest = np.setdiff1d(np.arange(len(scores)), fixed)
    drawn = _drawn(scores[rest], 0, count - len(fixed), rng)
    kept = np.concatenate([fixed, rest[drawn.kept]])
    return Selection(kept, np.concatenate([np.ones(len(fixed)), drawn.scale]), drawn.draws)


#: How the positions of a group are selected.
SELECTIONS: dict[str, Select] = register(("largest", largest), ("sampled", sampled), ("mixed", mixed))


def _probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    floored = np.maximum(scores, pfp.FLOOR)
    return floored / floored.sum()  # type: ignore[no-any-return]


def _drawn(scores: NDArray[np.float64], protected: int, count: int, rng: np.random.Generator) -> Selection:
    """Draw exactly `count` distinct positions; arguments as in `largest`."""
    if count in (0, len(scores)):  # nothing is left to chance
        return Selection(np.arange(count), np.ones(count))
    q, total = _probabilities(scores), float(scores.sum())
    wanted = pfp.draws_for(q, count)
    stream = _stream(q, count, wanted, rng)
    # the index of the first draw of each position
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
    """Draw at least `wanted` times, and until `count` positions are distinct, but at most `MOST_DRAWS` times."""
    stream = np.zeros(0, np.int64)
    while len(stream) < MOST_DRAWS and (len(stream) < wanted or len(np.unique(stream)) < count):
        more = min(MOST_DRAWS, max(wanted, 2 * len(stream), count)) - len(stream)
        stream = np.concatenate([stream, rng.choice(len(q), size=more, p=q)])
    return stream

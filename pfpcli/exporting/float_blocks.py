"""Float blocks: find the blocks of a network that have to stay in float for its outputs to stay where they are.

A network whose outputs move little with all blocks quantised needs no search. Otherwise each block is quantised alone
and its loss measured. Then the blocks are taken out of the quantised set, the one with the largest loss first, and a
bisection finds the smallest number of them that is enough. With n blocks that takes 1 + n + log2(n) measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

#: The largest number of blocks; longer networks have several layers in a block.
MOST_BLOCKS = 32


@dataclass(frozen=True)
class FloatBlocks:
    """The result of the search.

    Attributes:
        blocks: the indices of the blocks that stay in float.
        loss: the loss of the network with all other blocks quantised.
    """

    blocks: frozenset[int]
    loss: float


def find_float_blocks(count: int, loss: Callable[[frozenset[int]], float], limit: float) -> FloatBlocks:
    """Find the smallest set of blocks that has to stay in float, in the order of the losses of single blocks.

    Args:
        count: the number of blocks.
        loss: measures the loss of the network in which the blocks of a set stay in float.
        limit: the largest loss that is accepted.

    Returns:
        The blocks; all of them where no quantised block is accepted.
    """
    everything = frozenset(range(count))
    whole = loss(frozenset())
    if whole <= limit:
        return FloatBlocks(frozenset(), whole)
    alone = [loss(everything - {block}) for block in range(count)]
    order = sorted(range(count), key=lambda block: -alone[block])
    too_few, enough, best = 0, count, 0.0
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        found = loss(frozenset(order[:middle]))
        # "not <=": a loss that is nan is not accepted
        if found <= limit:
            enough, best = middle, found
        else:
            too_few = middle
    return FloatBlocks(frozenset(order[:enough]), best)


def in_blocks(groups: Sequence[tuple[str, ...]], most: int = MOST_BLOCKS) -> list[tuple[str, ...]]:
    """Join neighbouring groups of nodes into at most `most` blocks of almost equal numbers of groups."""
    count = min(most, len(groups))
    bounds = [len(groups) * i // count for i in range(count + 1)] if count else []
    return [tuple(name for group in groups[first:last] for name in group) for first, last in pairwise(bounds)]

"""Search: the number of positions each group keeps for which the cut network costs as close to a target as possible."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from pfpcli.planning.allocators import Counts
from pfpcli.planning.choices import Choice
from pfpcli.planning.plan import TOLERANCE

#: Kept positions of each choice -> what the cut network costs.
Cost = Callable[[list[int]], float]
#: Pairs of moves that are tried.
_PAIRS = 64


def search(choices: Sequence[Choice], counts_at: Counts, cost: Cost, target: float) -> tuple[list[int], float]:
    """Return the counts whose cost is closest to the target, and their level.

    The cost falls as the level grows, so bisection finds the largest plan that costs no more than the target. Counts
    are whole numbers, so this plan may cost much less: then up to two groups move by one step each.

    Args:
        choices: the groups that can lose units.
        counts_at: an allocator's counts for a level.
        cost: what the network costs for given counts.
        target: the cost to reach.
    """
    # decimal exponents: at the first all positions are kept, at the last as few as possible, whatever the losses' scale
    low, high = -45.0, 45.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        if cost(counts_at(10**middle)) > target:
            low = middle
        else:
            high = middle
    above, below = counts_at(10**low), counts_at(10**high)
    best = min(_between(choices, below, above), key=lambda counts: abs(cost(counts) - target))
    if abs(cost(best) - target) > TOLERANCE * target:
        best = _nudged(choices, best, cost, target)
    return best, 10**high


def _between(choices: Sequence[Choice], below: list[int], above: list[int]) -> Iterator[list[int]]:
    """Yield the plans from one to its neighbour: the groups grow one after the other, a step at a time."""
    counts = list(below)
    yield list(counts)
    for i, choice in enumerate(choices):
        while counts[i] < above[i]:
            counts[i] = choice.rounded(counts[i] + 1)
            yield list(counts)


def _nudged(choices: Sequence[Choice], counts: list[int], cost: Cost, target: float) -> list[int]:
    """Return the plan closest to the target among those in which at most two groups have moved by a step.

    Each move is tried alone first. The sum of the differences of two moves tells which pairs are promising.
    """
    now = cost(counts)
    moves = []
    for i, choice in enumerate(choices):
        for count in {choice.rounded(counts[i] + 1), choice.rounded(counts[i] - choice.step)} - {counts[i]}:
            moved = [*counts[:i], count, *counts[i + 1 :]]
            moves.append((i, count, cost(moved) - now))
    pairs = [(a, b) for a in moves for b in moves if a[0] <= b[0] and (a[0] != b[0] or a == b)]
    promising = sorted(pairs, key=lambda pair: abs(now + sum(d for _, _, d in set(pair)) - target))[:_PAIRS]
    plans = [counts]
    for pair in promising:
        moved = list(counts)
        for i, count, _ in pair:
            moved[i] = count
        plans.append(moved)
    return min(plans, key=lambda plan: abs(cost(plan) - target))

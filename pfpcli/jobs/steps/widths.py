"""Widths: whether a small network keeps multiples of channels, or widths as they fall.

onnxruntime takes convolutions whose channels are a multiple of 4 into a layout of blocks; others are slower, so that a
network of half the multiply-adds can be slower than the whole one. A wide group loses next to nothing by a multiple of
4, a narrow one may lose much. So two plans are made for a small network, one with multiples and one with widths as they
fall, and both are tried:

- Multiples are taken if they lose hardly more (`HARDLY`).
- If they do not lose far more (`FAR`), both files are timed beside the original's. Multiples are taken if the network
  with widths as they fall is not measurably faster than the original, and they make it measurably faster.
- Otherwise widths fall as they may.
"""

from __future__ import annotations

from collections.abc import Callable

from pfpcli.channels.groups import Groups
from pfpcli.jobs import cache
from pfpcli.latency.files import SpeedUp
from pfpcli.latency.stopwatch import PROVIDER, machine
from pfpcli.planning.choices import has_multiples, is_small
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.portfolio import Tried

#: Multiples that lose at most this many times as much as widths as they fall lose hardly more, or not far more.
HARDLY, FAR = 1.05, 1.25

#: Losses are at least this much, for their ratio.
_TINY = 1e-9
_MULTIPLES, _FALLEN = "widths: multiples of 4", "widths: as they fall"

#: (the plan with widths as they fall, the plan with multiples) -> how many times as fast as the original each file is,
#: and the second file as the first; None where they cannot be timed.
Race = Callable[[Plan, Plan], tuple[SpeedUp, SpeedUp, SpeedUp] | None]


def is_open(groups: Groups, budget: Budget) -> bool:
    """Whether widths are to be chosen: in a small network, if nothing else decides on them."""
    is_decided = budget.multiple_of is not None or budget.of == "latency"
    keeps_all = budget.epsilon is not None or budget.keep == 1
    return not is_decided and not keeps_all and is_small(groups) and has_multiples(groups)


def remembered(race: Race, key: str, threads: int | None) -> Race:
    """Return a race whose results are kept in the cache, so that the same command makes the same network again.

    Args:
        race: times the files.
        key: of the scores; "" if nothing is to be kept.
        threads: of onnxruntime; None for all cores.
    """

    def raced(first: Plan, second: Plan) -> tuple[SpeedUp, SpeedUp, SpeedUp] | None:
        name = cache.key_of_race(key, machine(threads, PROVIDER), (first.kept, second.kept)) if key else ""
        found = cache.load_race(name) if name else None
        if found is None:
            found = race(first, second)
            if found is not None and name:
                cache.save_race(name, found)
        return found

    return raced


def choose(free: list[Tried], stepped: list[Tried], race: Race | None) -> tuple[list[Tried], str]:
    """Choose between the plans with widths as they fall and those with multiples.

    Args:
        free: the plans with widths as they fall, the best one first.
        stepped: the plans with multiples, the best one first.
        race: times the files of two plans; None where they cannot be timed.

    Returns:
        (the plans that are chosen, what was chosen and why; "" where both have the same widths).
    """
    fell, rounded = free[0], stepped[0]
    if fell.plan.kept == rounded.plan.kept:
        return stepped, ""
    ratio = rounded.loss / max(fell.loss, _TINY)
    more = f"lose {ratio:.2f} × as much" if ratio > 1 else "lose no more"
    if ratio <= HARDLY:
        return stepped, f"{_MULTIPLES}; they {more}"
    if ratio > FAR:
        return free, f"{_FALLEN}; multiples of 4 {more}"
    timed = None if race is None else race(fell.plan, rounded.plan)
    if timed is None:
        return free, f"{_FALLEN}; multiples of 4 {more}, and nothing was timed"
    of_free, of_stepped, between = timed
    times = f"{of_free.times:.2f} × as fast as the original without them, {of_stepped.times:.2f} × with them"
    if of_free.low <= 1 and between.low > 1:
        return stepped, f"{_MULTIPLES}; they {more}, and the network is {times}"
    return free, f"{_FALLEN}; multiples of 4 {more}, and the network is {times}"

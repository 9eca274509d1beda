"""Widths: which of the plans that lose nearly the same is taken, by the time that their files take.

onnxruntime takes convolutions whose channels are a multiple of 4 into a layout of blocks; others are slower, so that a
network of half the multiply-adds can be slower than the whole one. A wide group loses next to nothing by a multiple of
4, a narrow one may lose much. So two plans are made for a small network, one with multiples and one with widths as they
fall, and both are tried:

- Multiples are taken if they lose hardly more (`HARDLY`).
- If they do not lose far more (`FAR`), both files are timed beside the original's. Multiples are taken if the network
  with widths as they fall is not measurably faster than the original, and they make it measurably faster.
- Otherwise widths fall as they may.

All plans of a larger network have multiples. Several of them may lose hardly more than the best (`HARDLY`), and take
different times, because multiply-adds in few channels or on large maps take longer. The quickest of them is taken.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pfpcli.channels.groups import Groups
from pfpcli.jobs import cache
from pfpcli.latency.files import Latency, speed_up
from pfpcli.latency.stopwatch import PROVIDER, machine
from pfpcli.planning.choices import has_multiples, is_small
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.portfolio import Tried

#: Multiples that lose at most this many times as much as widths as they fall lose hardly more, or not far more.
HARDLY, FAR = 1.05, 1.25
#: The most plans of a larger network whose files are timed.
TIMED = 3

#: Smaller losses are rounding errors: they count as this much.
_TINY = 1e-9
_MULTIPLES, _FALLEN = "widths: multiples of 4", "widths: as they fall"

#: Plans -> the latency of the file of each, that of the original for None; None where they cannot be timed.
Race = Callable[[Sequence[Plan | None]], list[Latency] | None]


def is_open(groups: Groups, budget: Budget) -> bool:
    """Whether both multiples and widths as they fall are tried: in a small network, if nothing else decides."""
    return not _is_decided(budget) and is_small(groups) and has_multiples(groups)


def is_timed(groups: Groups, budget: Budget) -> bool:
    """Whether the quickest of several plans is taken: in a larger network, if nothing else decides."""
    return not _is_decided(budget) and not is_small(groups)


def _is_decided(budget: Budget) -> bool:
    """Whether the budget alone decides on widths, whatever time their files take."""
    keeps_all = budget.epsilon is not None or budget.keep == 1
    return keeps_all or budget.multiple_of is not None or budget.of == "latency"


def remembered(race: Race, key: str, threads: int | None) -> Race:
    """Return a race whose results are kept in the cache, so that the same command makes the same network again.

    Args:
        race: times the files.
        key: of the scores; "" if nothing is to be kept.
        threads: of onnxruntime; None for all cores.
    """

    def raced(plans: Sequence[Plan | None]) -> list[Latency] | None:
        widths = [None if plan is None else plan.kept for plan in plans]
        name = cache.key_of_race(key, machine(threads, PROVIDER), widths) if key else ""
        found = cache.load_race(name) if name else None
        if found is None:
            found = race(plans)
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
    timed = None if race is None else race([None, fell.plan, rounded.plan])
    if timed is None:
        return free, f"{_FALLEN}; multiples of 4 {more}, and nothing was timed"
    whole, *files = timed
    (of_free, of_stepped), between = (speed_up(whole, file) for file in files), speed_up(*files)
    times = f"{of_free.times:.2f} × as fast as the original without them, {of_stepped.times:.2f} × with them"
    if of_free.low <= 1 and between.low > 1:
        return stepped, f"{_MULTIPLES}; they {more}, and the network is {times}"
    return free, f"{_FALLEN}; multiples of 4 {more}, and the network is {times}"


def quickest(tried: list[Tried], race: Race | None) -> tuple[list[Tried], str]:
    """Choose among the plans that lose hardly more than the best one.

    Args:
        tried: the plans, the best one first.
        race: times the files of plans; None where they cannot be timed.

    Returns:
        (the plans, the chosen one first; which was chosen and why, "" for the best one).
    """
    best, *_ = tried
    near = [each for each in tried if each.loss <= HARDLY * max(best.loss, _TINY)][:TIMED]
    timed = race([each.plan for each in near]) if race is not None and len(near) > 1 else None
    if timed is None:
        return tried, ""
    taken = 0
    for i in range(1, len(near)):
        if speed_up(timed[taken], timed[i]).low > 1:
            taken = i
    if not taken:
        return tried, ""
    chosen, times = near[taken], speed_up(timed[0], timed[taken]).times
    more = "both lose next to nothing" if chosen.loss <= _TINY else f"loses {chosen.loss / best.loss:.2f} × as much"
    why = f"plan {chosen.name} is {times:.2f} × as fast as {best.name}, and {more}"
    return [chosen, *(each for each in tried if each is not chosen)], f"widths: the quickest; {why}"

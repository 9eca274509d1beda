"""Measures as text, and which runs break a limit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from pfpcli.records import measures
from pfpcli.records.measures import Limit
from pfpcli.records.runs import AnyRun
from pfpcli.report import numbers

#: Unit -> the function that spells a number of it.
_SPELLED: dict[str, numbers.Spelling] = {
    measures.SHARE: numbers.share,
    measures.COUNT: numbers.count,
    measures.BYTES: numbers.size,
    measures.MILLISECONDS: lambda value: f"{numbers.milliseconds(value)} ms",
    measures.NUMBER: lambda value: f"{value:.4g}".replace("-", "−"),
}


def spelled(unit: str, value: float | None) -> str:
    """Return a number with its unit; a dash for None."""
    return "–" if value is None else _SPELLED[unit](value)


def broken(limits: Iterable[Limit], runs: Sequence[tuple[str, AnyRun]]) -> list[str]:
    """Return a line for each limit that a run breaks: `small: accuracy 90.2 % is under 95.0 %`.

    Args:
        limits: the limits.
        runs: the name and the record of each run.

    Raises:
        InputError: a run does not have a measure that a limit names.
    """
    found = [(limit, name, run) for limit in limits for name, run in runs if not limit.is_kept(run)]
    return [f"{name}: {limit.name} {_against(limit, run)}" for limit, name, run in found]


def _against(limit: Limit, run: AnyRun) -> str:
    """Return `90.2 % is under 95.0 %`; with more digits where both would look the same."""
    unit = measures.unit(limit.name, run)
    found, bound = (spelled(unit, value) for value in (limit.of(run), limit.value))
    if found == bound:
        found, bound = f"{limit.of(run):.9g}", f"{limit.value:.9g}"
    return f"{found} is {'under' if limit.is_least else 'over'} {bound}"

"""Provenance: which of several runs came from which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pfpcli.records.runs import AnyRun, Run, TunedRun
from pfpcli.records.sources import How, Source


@dataclass
class MadeFrom:
    """What some of the runs were made from.

    Attributes:
        how, name: as in `Source`.
        run: number of the run among the compared ones that this is, from 1; None for a sweep, and where no compared
            run or more than one can be it.
        made: numbers of the runs that were made from it.
    """

    how: How
    name: str
    run: int | None
    made: list[int]


def made_from(names: Sequence[str], runs: Sequence[AnyRun]) -> list[MadeFrom]:
    """Return what the runs were made from, in the order of the first run made from each.

    A record names its source by the name of a folder. A compared run is that source if its folder has the name and it
    was finished before; a folder that was renamed since is not recognised.

    Args:
        names: the names of the run folders.
        runs: their records.
    """
    found: dict[tuple[How, str, int | None], list[int]] = {}
    for number, run in enumerate(runs, 1):
        for source in _sources(run):
            found.setdefault((source.how, source.name, _number(source, run, names, runs)), []).append(number)
    return [MadeFrom(*key, made) for key, made in found.items()]


def _sources(run: AnyRun) -> list[Source]:
    if isinstance(run, TunedRun):
        return [Source("trained", run.run)]
    return run.sources if isinstance(run, Run) else []


def _number(source: Source, run: AnyRun, names: Sequence[str], runs: Sequence[AnyRun]) -> int | None:
    """Return the number of the run that a source is."""
    if source.how == "swept":
        return None
    fitting = [
        number
        for number, (name, other) in enumerate(zip(names, runs, strict=True), 1)
        if name == source.name and other is not run and other.created < run.created
    ]
    return fitting[0] if len(fitting) == 1 else None

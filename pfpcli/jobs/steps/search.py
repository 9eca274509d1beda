"""Search: the smallest network whose quality falls by at most so much after recovery, by bisection over the budget.

A quality is no smooth function of the budget, so the search finds a network that is good enough beside one that is not;
a smaller one that happens to be good enough may exist. Half of the judging images choose the network, if there are
enough of them. The other half confirms it: a network that was chosen by some images looks better on them than it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pfpcli import processes
from pfpcli.errors import BudgetError, InputError
from pfpcli.images.calibration import Division
from pfpcli.jobs.steps.export import export_files
from pfpcli.jobs.steps.gate import Metric, code_of, measure_metric
from pfpcli.jobs.steps.network import Network, Prepared
from pfpcli.outputs import fall
from pfpcli.outputs.roles import roles_of
from pfpcli.planning.plan import Budget
from pfpcli.progress import Console
from pfpcli.records.searched import Fall, Search, SearchedPoint
from pfpcli.report import falls, numbers
from pfpcli.settings.max_drop import DECIBELS, MaxDrop

#: The search ends when a network that is good enough keeps at most this fraction more than one that is not.
PRECISION = 0.02

#: What is kept of a network that was tried.
_Point = tuple[SearchedPoint, Fall | None]
#: Makes the network for a budget.
Make = Callable[[Budget, Console], Network]
#: Measures how far the quality of a network falls.
Judge = Callable[[Network, Console], Fall]


@dataclass(frozen=True)
class Searched:
    """The result of a search.

    Attributes:
        network: the network.
        search: the record of the search.
        ready: what the network was made of; its judging images are those that confirm it, where there are some.
    """

    network: Network
    search: Search
    ready: Prepared


@dataclass
class Try:
    """A network that was tried; `network` is None where it was tried before an interrupt, or there is none."""

    point: SearchedPoint
    fall: Fall | None
    network: Network | None = None


def search(
    ready: Prepared, make: Make, judge: Judge | None, asked: MaxDrop, budget: Budget, console: Console
) -> Searched:
    """Search the smallest network whose quality falls by at most so much.

    An interrupted search goes on where it stopped: the cache keeps what was measured until the run is written.

    Args:
        ready: what the networks are made of.
        make: makes the network for a budget.
        judge: measures the fall; None measures that of the quality on a half of the judging images.
        asked: the largest fall.
        budget: what "smallest" means, and the limits of the widths; its keep ratio is not used.
        console: shows a step for each network that is tried.

    Raises:
        BudgetError: every smaller network that was tried falls further.
    """
    choosing, confirming = ready.division.halves() if judge is None else (ready.division, None)
    decibels = asked.unit == DECIBELS
    measure = judge or (lambda network, inner: _on(choosing, ready, network, inner, decibels=decibels))
    tried = _bisected(ready, make, measure, asked, budget, console)
    good = [each for each in tried if each.point.within and each.point.achieved is not None]
    if not good:
        ready.store.forget()
        raise _nothing([each.point for each in tried], asked)
    best = min(reversed(good), key=lambda each: each.point.achieved or 0.0)
    network = best.network or make(replace(budget, keep=best.point.keep), console)
    confirmed = None
    if confirming is not None:
        confirmed = _on(confirming, ready, network, console, decibels=decibels)
    assert best.fall is not None
    record = Search(asked.most, best.fall, confirmed, [each.point for each in tried])
    ready = replace(ready.divided(confirming or choosing), budget=network.planned.plan.budget)
    return Searched(network, record, ready)


def bisect(is_good: Callable[[float], bool]) -> None:
    """Ask about keep ratios between 0 and 1 until a good one and a smaller one that is not are close together."""
    low, high = 0.0, 1.0
    while high - low > PRECISION * high:
        keep = (low + high) / 2
        if is_good(keep):
            high = keep
        else:
            low = keep


def _bisected(
    ready: Prepared, make: Make, measure: Judge, asked: MaxDrop, budget: Budget, console: Console
) -> list[Try]:
    """Try networks for budgets that bisection chooses; of the kept steps, those of the best network stay."""
    store = ready.store
    state = store.path("search", code_of(ready.settings.metric).hex())
    known = {point.keep: Try(point, fall) for point, fall in store.load(state, list[_Point]) or ()}
    tried: list[Try] = []
    of_best: list[Path] = []

    def is_good(keep: float) -> bool:
        first = len(store.files)
        now = known.get(keep) or _tried(make, measure, asked, replace(budget, keep=keep), console)
        if now.point.within:
            for each in tried:  # one cut network is enough in memory
                each.network = None
        tried.append(now)
        store.save(state, [(each.point, each.fall) for each in tried])
        of_this = store.files[first:]
        store.drop(of_best if now.point.within else of_this)
        if now.point.within:
            of_best[:] = of_this
        return now.point.within

    bisect(is_good)
    return tried


def by_metric(ready: Prepared, metric: Metric, named: str, scratch: Path) -> Judge:
    """Return what measures networks by a metric of the user, which wants an ONNX file of each.

    Args:
        ready: what the networks are made of.
        metric: the function.
        named: how the user named it.
        scratch: a folder for the files.
    """
    before: list[float] = []

    def measured(network: Network, console: Console) -> Fall:
        folder = scratch / "searched"
        folder.mkdir()
        try:
            exported = export_files(ready.model, network.made, ready.writer, folder, console)
            known = before[0] if before else None
            found = measure_metric(metric, named, exported, folder, ready.division, console, known)
        finally:
            shutil.rmtree(folder)
        assert found is not None
        before[:] = [found.before]
        return Fall(found.name, "", found.before, found.after, None, None, None, "--metric")

    # one process writes the file, and all decide by its number
    return lambda network, console: processes.of_first(lambda: measured(network, console))


def check_unit(ready: Prepared, asked: MaxDrop | None, metric: Metric | None) -> None:
    """Refuse decibels for a network that is not judged in decibels.

    Raises:
        InputError: the network puts out no pictures, or they have no targets.
    """
    if asked is None or asked.unit != DECIBELS or metric is not None:
        return
    kinds = {role.kind for role in roles_of(ready.groups.labelled.graph)}
    if "image" not in kinds:
        raise InputError(f"--max-drop {asked}: the network puts out {', '.join(sorted(kinds))}, no pictures", _LIKE)
    if ready.division.judges.targets is None:
        raise InputError(f"--max-drop {asked}: {ready.division.judges.name} has no target pictures", _LABELS)


_LIKE = "say it as a part of the quality, e.g. `--max-drop 1%`, or name a metric in decibels with --metric"
_LABELS = "name their folder with --labels, or say it as a part of the quality, e.g. `--max-drop 1%`"


def _tried(make: Make, measure: Judge, asked: MaxDrop, budget: Budget, console: Console) -> Try:
    """Make and measure a network."""
    share = numbers.percent(budget.keep)
    with console.step("search") as step, console.part(step) as inner:
        try:
            network = make(budget, inner)
        except BudgetError:
            step.summary = f"keep {share}: not reachable"
            return Try(SearchedPoint(budget.keep, None, None, within=False), None)
        found = measure(network, inner)
        within = found.fall <= asked.most
        step.summary = f"keep {share}: {falls.moved(found)}{'' if within else ', too much'}"
    point = SearchedPoint(budget.keep, network.planned.plan.achieved, found.fall, within)
    return Try(point, found, network if within else None)


def _on(division: Division, ready: Prepared, network: Network, console: Console, *, decibels: bool) -> Fall:
    """Measure the fall of the quality on judging images."""
    whole = ready.groups.labelled.graph
    with console.step("confirm") as step:
        batches = step.counted(division.judging(whole.fixed_batch), len(division.judged))
        found = fall.fall(whole, network.made.graph, batches, division.source, ready.device, decibels=decibels)[1]
        step.summary = f"{falls.moved(found)} · {found.images} {found.source}"
    return found


def _nothing(points: Sequence[SearchedPoint], asked: MaxDrop) -> BudgetError:
    """The error where no smaller network is good enough."""
    tried = [each for each in points if each.fall is not None]
    largest = max(tried, key=lambda each: each.keep, default=None)
    if largest is None or largest.fall is None:
        return BudgetError(f"--max-drop {asked}: no smaller network can be made", "see `pfp inspect MODEL`")
    return BudgetError(
        f"--max-drop {asked}: every smaller network that was tried falls further (by {largest.fall:.3g} at "
        f"{numbers.percent(largest.keep)})",
        "allow more, or recover better: `--recover lsq,distill --minutes 5`",
    )

"""Progress: a run reports its steps, their times and its warnings to a `Console`.

The classes here show nothing. `cli.terminal` shows one line per step on stderr.

How long a step takes depends on the network, the images and the machine. How much longer it takes than an earlier step
depends on them far less, so a run that has scored its channels can say when it will end, about (`Forecast`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from pfpcli import memory

_Batch = TypeVar("_Batch", bound=tuple[Any, ...])


class Step:
    """One step of a run.

    Attributes:
        name: its name, e.g. "score".
        summary: its result, in one line.
        seconds: its time, once it has ended.
        is_cached: whether its result was read from a cache, so that its time says nothing about the work.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.summary = ""
        self.seconds = 0.0
        self.is_cached = False

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report that `done` of `total` units are done, e.g. images; called often."""

    def counted(self, batches: Iterable[_Batch], total: int, unit: str = "images") -> Iterator[_Batch]:
        """Yield batches, and report how many of their items are done; an item counts as done with the next batch.

        Args:
            batches: tuples whose first part has a length.
            total: the number of items.
            unit: what they are.
        """
        done = 0
        for batch in batches:
            yield batch
            done += len(batch[0])
            self.progress(min(done, total), total, unit)


class Like(NamedTuple):
    """The expected time of a step: so many times that of an earlier step.

    Attributes:
        step: the earlier step.
        times: the ratio.
    """

    step: str
    times: float


@dataclass(frozen=True)
class Forecast:
    """The expected times of the steps of a run.

    Attributes:
        expected: the steps that will run, in order.
    """

    expected: Mapping[str, Like]

    def after(self, name: str, taken: Mapping[str, float]) -> float | None:
        """Return the seconds that all steps after one will take, about; None if nothing can be said yet.

        Args:
            name: of the step.
            taken: the seconds of the steps that have done their work in this run.
        """
        names = [*self.expected]
        if name not in names:
            return None
        ahead = [self.expected[each] for each in names[names.index(name) + 1 :]]
        if any(like.step not in taken for like in ahead):
            return None
        return sum(like.times * taken[like.step] for like in ahead)


class Console:
    """Receives the steps and the warnings of a run.

    Attributes:
        timings: name of a step -> its seconds; steps of one name are added up.
        held: name of a step -> the bytes of memory held after it; empty where the system does not tell.
        peaks: name of a step -> the most bytes held during it.
        warnings: the warnings in order, without duplicates.
        worked: the seconds of the steps whose result was not read from a cache.
        forecast: the expected times of the steps; None where they are not known.
    """

    def __init__(self) -> None:
        self.forecast: Forecast | None = None
        self.worked: dict[str, float] = {}
        self.timings: dict[str, float] = {}
        self.held: dict[str, int] = {}
        self.peaks: dict[str, int] = {}
        self.warnings: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Run a `with` block as a step; take its time and its memory."""
        step = self.begin(name)
        memory.forget_peak()
        start = time.perf_counter()
        try:
            yield step
        except BaseException:
            self.abandon(step)
            raise
        step.seconds = time.perf_counter() - start
        if not step.is_cached:
            self.worked[name] = step.seconds
        self.timings[name] = round(self.timings.get(name, 0.0) + step.seconds, 3)
        peak = memory.peak()
        memory.drop_and_give_back()  # the networks that a step has tried
        held = memory.held()
        if held is not None and peak is not None:
            self.held[name], self.peaks[name] = held, max(peak, self.peaks.get(name, 0))
        self.end(step)

    def warn(self, message: str) -> None:
        """Keep a warning for the record and for the end of the run."""
        if message not in self.warnings:
            self.warnings.append(message)

    @contextmanager
    def part(self, step: Step) -> Iterator[Console]:
        """Yield a console for the steps within a step: their progress is shown as that of the step.

        It starts with the times and the memory of this console, so a record that is made of it has all of them.
        """
        inner = _Part(step)
        inner.timings, inner.held, inner.peaks = dict(self.timings), dict(self.held), dict(self.peaks)
        try:
            yield inner
        except BaseException:
            self.warnings += inner.warnings
            raise
        self.peaks.update(inner.peaks)

    def begin(self, name: str) -> Step:
        """Start showing a step."""
        return Step(name)

    def end(self, step: Step) -> None:
        """Show a finished step."""

    def abandon(self, step: Step) -> None:
        """Stop showing a step that failed."""


class _Part(Console):
    """Receives the steps within a step."""

    def __init__(self, whole: Step) -> None:
        super().__init__()
        self._whole = whole

    def begin(self, name: str) -> Step:
        """Let the progress of the step be that of the whole."""
        return _PartOf(name, self._whole)


class _PartOf(Step):
    """A step within a step."""

    def __init__(self, name: str, whole: Step) -> None:
        super().__init__(name)
        self._whole = whole

    def progress(self, done: int, total: int, unit: str) -> None:
        """Report the progress as that of the whole, with the name of the step."""
        self._whole.progress(done, total, f"{unit} ({self.name})")

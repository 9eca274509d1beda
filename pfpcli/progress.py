"""What a run says while it works: one line per step on stderr; the library is silent by default."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pfpcli.errors import Interrupted


class Step:
    """One step of a run, e.g. "score". This one says nothing; the command line shows it (cli.py).

    Attributes:
        summary: what the step came to, in one line.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.summary = ""
        self.seconds = 0.0

    def progress(self, done: int, total: int, unit: str) -> None:
        """So much is done; called often."""


class Console:
    """Listens to the steps of a run and takes their times."""

    def __init__(self) -> None:
        self.timings: dict[str, float] = {}
        self.warnings: list[str] = []

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """A step begins; it ends with the block."""
        step = self.begin(name)
        start = time.perf_counter()
        try:
            yield step
        except BaseException:
            self.abandon(step)
            raise
        step.seconds = time.perf_counter() - start
        self.timings[name] = round(self.timings.get(name, 0.0) + step.seconds, 3)
        self.end(step)

    @contextmanager
    def resumable(self, state: Path) -> Iterator[None]:
        """Training begins that leaves its state in a file when it is interrupted; says that it can go on."""
        try:
            yield
        except (KeyboardInterrupt, Interrupted):
            if state.exists():
                self.warn("training was interrupted; the same command goes on where it stopped")
            raise

    def warn(self, message: str) -> None:
        """Something the user should know; kept for the record, shown at the end."""
        if message not in self.warnings:
            self.warnings.append(message)

    def begin(self, name: str) -> Step:
        """Start showing a step."""
        return Step(name)

    def end(self, step: Step) -> None:
        """Show a finished step."""

    def abandon(self, step: Step) -> None:
        """A step failed: stop showing it."""

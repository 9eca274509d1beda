"""What the command line writes: plain text with some words coloured, and the steps of a run as they happen.

stdout carries the result, stderr everything else. Colour confirms what the words say; rich decides whether there is any
(a terminal that can, `NO_COLOR`, `FORCE_COLOR`, `TERM=dumb`), unless `--color` does.
"""

from __future__ import annotations

import os
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from typing import TextIO

from rich.console import Console as RichConsole
from rich.live import Live
from rich.text import Text

from pfpcli.progress import Console, Step
from pfpcli.report.numbers import clock, seconds
from pfpcli.report.page import spell

#: Words that are coloured, wherever they stand in what is written.
COLOURS = {
    r"(?m)^PASS\b": "bold green",
    r"(?m)^WORSE\b": "bold yellow",
    r"\bFAILED\b": "bold red",
    r"(?m)^error:": "bold red",
    r"(?m)^ *warning:": "yellow",
    r"(?m)^hint:": "cyan",
    r"(?m)^wrote \S+": "cyan",
    r"(?m)… .*--all$": "dim",
}

#: Where the time of a finished step ends, and the seconds between two pictures of a running one.
STEP_WIDTH, REFRESH = 80, 0.1


class _Rich(RichConsole):
    def on_broken_pipe(self) -> None:
        """Leave it to the command line; rich would end the program itself, with the code of a failed check."""
        raise BrokenPipeError


class Output:
    """One of the two streams.

    Args:
        stream: stdout or stderr.
        color: "auto", "always" or "never".
    """

    def __init__(self, stream: TextIO, color: str = "auto") -> None:
        plain = color == "never" or (color == "auto" and bool(os.environ.get("NO_COLOR")))
        self.unicode = (stream.encoding or "").lower().startswith("utf")
        self.rich = _Rich(
            file=stream,
            force_terminal=True if color == "always" else None,
            color_system=None if plain else "standard" if color == "always" else "auto",
            no_color=plain,
            highlight=False,
            soft_wrap=True,
        )
        #: Whether a line can be written over. Colours may be forced into a file, this not.
        self.live = stream.isatty() and not self.rich.is_dumb_terminal

    def write(self, text: str) -> None:
        """Write text that ends without a newline."""
        self.rich.print(self.coloured(text))

    def coloured(self, text: str) -> Text:
        """The text with its key words coloured, in characters the stream has."""
        coloured = Text(spell(text, self.unicode))
        for pattern, style in COLOURS.items():
            coloured.highlight_regex(pattern, style)
        return coloured


class TerminalConsole(Console):
    """Shows one line per step: a live one on a terminal, and a final one everywhere.

        curves     50/100 % of the groups  8/s  ETA 0:06, of the run about 0:40
        score      256 images · criterion pfp                                      6.1 s

    Args:
        output: stderr.
        quiet: show warnings only.
    """

    def __init__(self, output: Output, quiet: bool = False) -> None:
        super().__init__()
        self._output = output
        self._quiet = quiet
        self._moving = output.live and not quiet and not os.environ.get("PFP_NO_PROGRESS")
        self._line: Live | None = None

    def begin(self, name: str) -> Step:
        """Start the live line."""
        if not self._moving:
            return Step(name)
        self._line = Live(console=self._output.rich, auto_refresh=False, transient=True)
        self._line.start()
        self._picture(f"  {name}")
        return _Counting(name, self._picture, None if self.forecast is None else self.forecast.after(name, self.worked))

    def end(self, step: Step) -> None:
        """Put the final line in its place."""
        self.abandon(step)
        if not self._quiet:
            self._output.write(finished(step))

    def abandon(self, step: Step) -> None:
        """Take the live line away."""
        if self._line is not None:
            self._line.stop()
            self._line = None

    @contextmanager
    def starting(self) -> Iterator[None]:
        """Before the first step, which cannot begin before its code is there; leaves no trace."""
        step = self.begin("starting")
        try:
            yield
        finally:
            self.abandon(step)

    def close(self) -> None:
        """After the last step: the warnings, each once."""
        for warning in self.warnings:
            self._output.write(f"warning: {warning}")

    def _picture(self, text: str) -> None:
        if self._line is not None:
            line = Text(spell(text, self._output.unicode), no_wrap=True, overflow="ellipsis")
            self._line.update(line, refresh=True)


class _Counting(Step):
    """A step whose line counts.

    Args:
        name: of the step.
        show: shows the line.
        later: the seconds that the steps after it will take, about; None where that is not known.
    """

    def __init__(self, name: str, show: Callable[[str], None], later: float | None) -> None:
        super().__init__(name)
        self._show = show
        self._later = later
        self._first: tuple[float, int] | None = None
        self._counted = ("", 0)
        self._shown = 0.0

    def progress(self, done: int, total: int, unit: str) -> None:
        """Show the count, but not more often than anyone can read."""
        now = time.perf_counter()
        if self._first is None or self._counted != (unit, total):  # a step within this one has begun
            self._first, self._counted = (now, done), (unit, total)
        if now - self._shown >= REFRESH:
            self._shown = now
            elapsed, gained = now - self._first[0], done - self._first[1]
            self._show(counting(self.name, done, total, unit, elapsed, gained, self._later))


def counting(
    name: str, done: int, total: int, unit: str, elapsed: float, gained: int, later: float | None = None
) -> str:
    """A running step: `  score      128/256 images  41/s  ETA 0:03`, and `, of the run about 0:40` where it is known.

    Args:
        name: of the step.
        done: so many are done.
        total: of so many.
        unit: of these.
        elapsed: seconds since counting began.
        gained: how many were done in that time.
        later: the seconds that the steps after it will take, about.
    """
    text = f"  {name:<9}  {done}/{total} {unit}"
    if gained < 1 or elapsed <= 0:
        return text
    rate = gained / elapsed
    left = (total - done) / rate
    run = "" if later is None else f", of the run about {clock(ceil(left + later))}"
    return f"{text}  {rate:.{0 if rate >= 9.5 else 1}f}/s  ETA {clock(ceil(left))}{run}"


def finished(step: Step) -> str:
    """A finished step; a long summary goes on below.

    `  score      256 images · criterion pfp                                      6.1 s`
    """
    taken = seconds(step.seconds)
    lead = f"  {step.name:<9}  "
    summary = f"cached: {step.summary}" if step.is_cached else step.summary
    first, *rest = textwrap.wrap(summary, STEP_WIDTH - len(lead) - len(taken) - 2) or [""]
    text = f"{lead}{first}"
    return "\n".join([f"{text:<{STEP_WIDTH - len(taken) - 2}}  {taken}", *(" " * len(lead) + line for line in rest)])

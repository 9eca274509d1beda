"""Talk: results to stdout, steps and warnings to stderr; a road of the pipeline is gone with both in their places."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import typer

from pfpcli import processes, report
from pfpcli.records.record import Record
from pfpcli.settings import Network

if TYPE_CHECKING:
    from pfpcli.cli.terminal import Output


class Document(Protocol):
    """What a command came to, as it is written to a file."""

    def json(self) -> str:
        """The record as text."""


@dataclass(frozen=True)
class Talk:
    """How a command was told to talk."""

    as_json: bool
    quiet: bool
    verbose: bool
    color: str

    def run(self, road: str, settings: Network) -> Any:
        """Go one of the pipeline's roads with its steps on stderr; the warnings are shown however it ends."""
        with _one_talks():
            return self._run(road, settings)

    def _run(self, road: str, settings: Network) -> Any:
        from pfpcli.cli.terminal import TerminalConsole

        console = TerminalConsole(self.beside(), self.quiet)
        # Libraries print, and so may the user's own network: stdout is for the result alone.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            if not self.verbose:
                warnings.simplefilter("ignore")
            with console.starting():  # torch takes seconds to import
                pipeline = importlib.import_module("pfpcli.jobs.pipeline")
                processes.start()
            try:
                found = getattr(pipeline, road)(settings, console)
                processes.finish()
                return found
            finally:
                console.close()

    def finish(self, finished: Record, folder: str) -> None:
        """Show what a run came to and where it lies; a run whose checks do not hold ends the program with 1."""
        if self.as_json:
            self.json(finished)
        elif not self.quiet:
            self.beside().write("")
            page = self.page()
            text = report.summary(finished, folder=folder, width=width(), unicode=page.unicode)
            page.write(text.removesuffix("\n"))
        if finished.status != "ok":
            if self.as_json or self.quiet:
                self.beside().write(report.verdict(finished))
            raise typer.Exit(1)

    def beside(self) -> Output:
        """Where everything goes that is not the result: stderr."""
        return output(sys.stderr, self.color)

    def page(self) -> Output:
        """Where the result goes: stdout."""
        return output(sys.stdout, self.color)

    def json(self, found: Document) -> None:
        """The record as it stands in its file, byte for byte, whatever the encoding of the terminal."""
        sys.stdout.flush()
        sys.stdout.buffer.write(found.json().encode("utf-8"))


@contextlib.contextmanager
def _one_talks() -> Iterator[None]:
    """Silence, unless this is the first of the processes that work together."""
    if processes.is_first():
        yield
        return
    with (
        open(os.devnull, "w", encoding="utf-8") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def output(stream: TextIO, color: str) -> Output:
    """A stream as one to talk on, in colour if that is asked for or the stream is a terminal."""
    from pfpcli.cli.terminal import Output

    return Output(stream, color)


def width() -> int:
    """Columns of the terminal."""
    return get_terminal_size((80, 24)).columns

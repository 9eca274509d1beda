"""Session: run a job for the terminal. The result goes to stdout, the steps and the warnings to stderr."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import TYPE_CHECKING, Any, TextIO

import typer

from pfpcli import processes, report
from pfpcli.cli.resume import Line
from pfpcli.records.document import Document
from pfpcli.report import settings as shown_settings
from pfpcli.settings import NetworkSettings

if TYPE_CHECKING:
    from pfpcli.cli.terminal import Output


@dataclass(frozen=True)
class Session:
    """How a command shows what it does.

    Attributes:
        as_json: print the record as JSON on stdout, and nothing else there.
        quiet: show no steps, and nothing but the result.
        verbose: show the warnings of libraries.
        color: "auto", "always" or "never".
        show_settings: show the settings of a job with their origins, and do not run it.
        line: what was typed, for a job that can go on after an interrupt; None for all others.
    """

    as_json: bool
    quiet: bool
    verbose: bool
    color: str
    show_settings: bool = False
    line: Line | None = None

    def run(self, job: str, settings: Any) -> Any:
        """Run a job of `pfpcli.jobs` with its steps on stderr; the warnings are shown also when it fails.

        Args:
            job: its name.
            settings: of the class that the job takes.
        """
        with _only_first_speaks():
            if self.show_settings:
                page = self.stdout()
                text = shown_settings.render(settings.recorded(), settings.origins, width=width(), unicode=page.unicode)
                page.write(text.removesuffix("\n"))
                raise typer.Exit
            with nullcontext() if self.line is None else self.line.kept(settings):
                return self._run(job, settings)

    def _run(self, job: str, settings: NetworkSettings) -> Any:
        from pfpcli.cli.terminal import TerminalConsole

        console = TerminalConsole(self.stderr(), self.quiet)
        # Libraries print, and so may the user's own network: stdout is for the result alone.
        with contextlib.redirect_stdout(sys.stderr), warnings.catch_warnings():
            if not self.verbose:
                warnings.simplefilter("ignore")
            with console.starting():  # torch takes seconds to import
                module = importlib.import_module(f"pfpcli.jobs.{job}")
                processes.start()
            try:
                found = getattr(module, job)(settings, console)
                processes.finish()
                return found
            finally:
                console.close()

    def finish(self, finished: Any) -> None:
        """Show a run and its folder; a run whose checks do not hold ends the program with exit code 1.

        Args:
            finished: the result of a job that writes a run folder (`pfpcli.jobs.finished`).
        """
        run, folder = finished.record, finished.folder
        if self.as_json:
            self.json(run, folder)
        elif not self.quiet:
            self.stderr().write("")
            page = self.stdout()
            text = report.summary(run, folder=folder, width=width(), unicode=page.unicode)
            page.write(text.removesuffix("\n"))
        if run.status == "failed":
            if self.as_json or self.quiet:
                self.stderr().write(report.verdict(run))
            raise typer.Exit(1)

    def stderr(self) -> Output:
        """The stream for everything but the result."""
        return output(sys.stderr, self.color)

    def stdout(self) -> Output:
        """The stream for the result."""
        return output(sys.stdout, self.color)

    def json(self, document: Document, folder: str | None = None) -> None:
        """Print a document in UTF-8, whatever the encoding of the terminal; with its folder, if it has one."""
        self.text(document.json(folder))

    def text(self, content: str) -> None:
        """Print the content of a file in UTF-8, whatever the encoding of the terminal."""
        sys.stdout.flush()
        sys.stdout.buffer.write(content.encode("utf-8"))


@contextlib.contextmanager
def _only_first_speaks() -> Iterator[None]:
    """Silence every process but the first of those that work together."""
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

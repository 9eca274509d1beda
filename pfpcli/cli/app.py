"""The `pfp` program as typer sees it, and how commands join it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from pfpcli._version import __version__
from pfpcli.cli import config, resume
from pfpcli.errors import INTERRUPTED, NOBODY_READS, InputError, Interrupted

#: Command -> lines to type, the shortest first.
EXAMPLES: dict[str, tuple[str, ...]] = {}


class _Commands(TyperGroup):
    """The commands; says what was meant where there is none of that name, and lets interrupts through to `run`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command that `args` begins with."""
        name, known = args[0], self.list_commands(ctx)
        if name not in known and not name.startswith("-") and not ctx.resilient_parsing:
            raise InputError(f"{name}: no such command", _meant(name, known))
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run a command; click would end quietly on either of these, and with exit codes of its own."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise Interrupted(INTERRUPTED) from None
        except BrokenPipeError:
            raise Interrupted(NOBODY_READS) from None


def _meant(name: str, known: Sequence[str]) -> str:
    close = get_close_matches(name, known, 1)
    if close:
        return f"did you mean `pfp {close[0]}`?"
    if Path(name).is_file():
        return f"to prune it: `pfp compress {shlex.quote(name)} --calib DIR`"
    return f"use one of {', '.join(known)}; see `pfp --help`"


class _Command(TyperCommand):
    """A command that takes defaults from the config file.

    Its usage is written out: typer's versions put different brackets around arguments.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments of the command, with the config file of the current folder, or a run that goes on."""
        if not ctx.resilient_parsing and not {"-h", "--help"}.intersection(args) and not resume.apply(ctx, args):
            config.apply(ctx, config.find(Path()))
        with config.naming_the_file(ctx):
            rest: list[str] = super().parse_args(ctx, args)
        resume.check(ctx)
        config.settle(ctx)
        return rest

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with config.naming_the_file(ctx):
            return super().invoke(ctx)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What follows the name of the command."""
        return [self.options_metavar or ""]


app = typer.Typer(
    cls=_Commands,
    help="Make a convolutional network smaller: prune its channels, recover its accuracy, export it to ONNX.",
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def command(usage: str, *examples: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a function a command of that name.

    Args:
        usage: what follows its name.
        examples: lines to type, the shortest first.
    """

    def join(function: Callable[..., None]) -> Callable[..., None]:
        name = function.__name__.replace("_", "-")
        if name in EXAMPLES:
            raise ValueError(f"{name} is a command already")
        EXAMPLES[name] = examples
        epilog = "\n".join(["Examples:", *examples])
        return app.command(name, cls=_Command, options_metavar=usage, epilog=epilog)(function)

    return join


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pfp {__version__}")
        raise typer.Exit


@app.callback()
def _global(
    version: Annotated[
        bool,
        typer.Option(
            "-V", "--version", help="Print the version and exit.", metavar="", is_eager=True, callback=_print_version
        ),
    ] = False,
) -> None:
    pass

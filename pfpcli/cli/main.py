"""Command line: the `pfp` program. Arguments in; what went wrong becomes text and an exit code, in one place.

    0    done, and every check held
    1    done, but a check did not hold; a network that fails its verification is not kept
    2    not done: a flag, a file, a budget out of reach, or a bug in pfp
    130  interrupted (143: told to end, 141: nobody reads the output); no unfinished run was written

The commands are in `commands/`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TextIO

import typer

from pfpcli import processes
from pfpcli.cli import commands
from pfpcli.cli.app import EXAMPLES, app
from pfpcli.cli.flags import Asked
from pfpcli.cli.session import output
from pfpcli.errors import INTERRUPTED, NOBODY_READS, Dismissed, Interrupted, PfpError

commands.join_all()

#: The base of all errors about flags. Depending on its version, typer has its own copy of click, or click's.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]


def main() -> NoReturn:
    """The `pfp` command."""
    signal.signal(signal.SIGTERM, _terminated)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started us
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Do what the arguments say; returns the exit code."""
    asked = Asked()
    try:
        code = _program().main(list(args) or ["--help"], "pfp", standalone_mode=False, obj=asked)
        sys.stdout.flush()
    except Dismissed:
        code = 0
    except (Exception, KeyboardInterrupt, Interrupted) as error:
        code = explain(_interrupt_behind(error) or error, asked)
    return code or 0


@cache
def _program() -> Any:
    """The command with all subcommands; typer takes longer to make it than a refusal takes."""
    return typer.main.get_command(app)


def _interrupt_behind(error: BaseException) -> BaseException | None:
    """The interrupt an error comes from; onnxruntime, interrupted while it is imported, fails with an ImportError."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt | Interrupted):
        cause = cause.__cause__
    return cause


def explain(error: BaseException, asked: Asked) -> int:
    """Say on stderr what went wrong; returns the exit code. The one place where errors become text.

    `error: weights.pt: this is a state dict, not a model

    hint: name the function that builds the network with --arch`
    """
    code = _exit_code(error)
    if isinstance(error, OSError) or code == NOBODY_READS:
        _drop(sys.stdout)
    try:
        if code != NOBODY_READS:
            processes.tell(lambda: output(sys.stderr, asked.color).write(_text(error, asked.verbose)))
    except BrokenPipeError:
        code = NOBODY_READS
    if code == NOBODY_READS:
        _drop(sys.stderr)
    return code


def _exit_code(error: BaseException) -> int:
    if isinstance(error, BrokenPipeError):
        return NOBODY_READS
    return int(getattr(error, "exit_code", INTERRUPTED if isinstance(error, KeyboardInterrupt) else 2))


def _text(error: BaseException, verbose: bool) -> str:
    """All that is said about an error."""
    if isinstance(error, KeyboardInterrupt | Interrupted):
        hint = getattr(error, "hint", "")
        return "interrupted; no unfinished run was written" + (f"\n\nhint: {hint}" if hint else "")
    message, hint = _explained(error, verbose)
    seen = "".join(traceback.format_exception(error)) + "\n" if verbose and not isinstance(error, UsageError) else ""
    return f"{seen}error: {message}" + (f"\n\nhint: {hint}" if hint else "")


def _explained(error: BaseException, verbose: bool) -> tuple[str, str]:
    """An error's message and hint."""
    if isinstance(error, PfpError):
        return error.message, error.hint
    if isinstance(error, UsageError):
        return _usage(error)
    if isinstance(error, OSError) and error.strerror:
        where = f"{Path(os.fsdecode(error.filename)).name}: " if error.filename else ""
        return f"{where}{error.strerror}", "" if verbose else "run it again with -v to see where"
    text = " ".join(str(error).split())
    what = f"this is a bug in pfp: {type(error).__name__}" + (f": {text}" if text else "")
    seen = "report it with the lines above" if verbose else "run it again with -v, and report it with what that prints"
    return what, seen


def _usage(error: Any) -> tuple[str, str]:
    """The parser's errors in our words, and the flag that was probably meant."""
    command = error.ctx.command_path if error.ctx else "pfp"
    see = f"see `{command} --help`"
    if hasattr(error, "possibilities"):
        close = list(error.possibilities or ())
        return f"{error.option_name}: no such option of {command}", f"did you mean `{close[0]}`?" if close else see
    parameter = getattr(error, "param", None)
    if parameter is None:
        return _clause(error.message), see
    flag = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.metavar
    if hasattr(error, "param_type"):
        return f"{flag} is missing", f"for example `{EXAMPLES[error.ctx.info_name][0]}`"
    return f"{flag}: {_clause(error.message)}", see


def _clause(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:].rstrip(".")


def _terminated(number: int, frame: FrameType | None) -> NoReturn:
    raise Interrupted(128 + number)


def _drop(stream: TextIO) -> None:
    """Let what is still in the buffer go nowhere, so that Python does not complain about it at the end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())

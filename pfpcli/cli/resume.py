"""Resume: `--resume RUN` goes on with a run that was interrupted, with the options that it was started with.

The options are kept from the start of a run until it is written (`pfpcli.records.started`). Flags that let files run
code are not kept, since a file may come from somebody else: they have to be typed again.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pfpcli import processes
from pfpcli.cli import config
from pfpcli.errors import INTERRUPTED, InputError, Interrupted
from pfpcli.records.reused_settings import BUILDERS
from pfpcli.records.started import Started, Value, find, started, state_folder

#: Parameters that let files run code.
CODE = ("arch", "arch_kwargs", "metric", "trust")
#: Parameters that say how a command shows what it does, and the one that names the run.
_OF_A_CALL = ("as_json", "quiet", "verbose", "color", "show_settings", "resume")
#: Under this key, the metadata of a context has the run that goes on.
_RESUMED = "pfpcli.resumed"


class Writes(Protocol):
    """The settings of a command that writes a folder."""

    @property
    def folder(self) -> Path:
        """The folder."""

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values."""


def apply(context: Any, args: Sequence[str]) -> bool:
    """Let the options of the run that `--resume` names be the defaults of a command.

    Args:
        context: of the command, before its arguments are parsed; its defaults change.
        args: the arguments.

    Returns:
        Whether there is such an option.

    Raises:
        InputError: no such run can go on.
    """
    named = _named(args)
    if named is None or "resume" not in {param.name for param in context.command.params}:
        return False
    found = find(Path(named), context.info_name)
    context.default_map = {
        name: value for name, value in _safe(found.options).items() if value is not None and name not in _OF_A_CALL
    }
    context.meta[_RESUMED] = found
    config.remember(context, found.origins)
    return True


def check(context: Any) -> None:
    """Refuse flags that contradict the run that goes on; after the parsing.

    Raises:
        InputError: a flag says something else than the run was started with, or a flag has to be typed again.
    """
    found: Started | None = context.meta.get(_RESUMED)
    if found is None:
        return
    options, run = _safe(found.options), context.params["resume"]
    for param in context.command.params:
        flag, value = _flag(param), _plain(context.params[param.name])
        is_typed = config.source(context, param.name) == "COMMANDLINE" and param.name not in _OF_A_CALL
        if is_typed and flag not in found.code and value != options.get(param.name):
            before = options.get(param.name)
            had = f"with {_spelled(flag, before)}" if before else f"without {flag}"
            raise InputError(
                f"{_spelled(flag, value)}: {run} was started {had}",
                f"leave {flag} out; another run has to be typed as a whole, without --resume",
            )
        if flag in found.code and not is_typed:
            raise InputError(
                f"--resume {run}: it was started with {flag}, which is not kept, since it lets files run code",
                f"type it again: `pfp {found.command} --resume {run} {flag} …`",
            )


def _named(args: Sequence[str]) -> str | None:
    """Return the value of --resume among arguments."""
    for number, arg in enumerate(args):
        if arg == "--resume":
            return args[number + 1] if number + 1 < len(args) else None
        if arg.startswith("--resume="):
            return arg.partition("=")[2]
    return None


def _safe(options: Mapping[str, Value]) -> dict[str, Value]:
    """Return options without those that let files run code; torchvision and timm build architectures of their own."""
    kept = ("arch", "arch_kwargs") if str(options.get("arch")).startswith(BUILDERS) else ()
    return {name: value for name, value in options.items() if name not in CODE or name in kept}


def _plain(value: Any) -> Value:
    """Return the value of a parameter as JSON has it."""
    if isinstance(value, list | tuple):
        return [str(each) for each in value]
    return os.fspath(value) if isinstance(value, Path) else value


def _flag(param: Any) -> str:
    return str(next((name for name in param.opts if name.startswith("--")), param.metavar))


def _spelled(flag: str, value: Value) -> str:
    """Return a flag with its value, as it is typed."""
    if isinstance(value, list):
        return " ".join(_spelled(flag, each) for each in value)
    return flag if value is True else f"{flag} {shlex.quote(str(value))}"


@dataclass(frozen=True)
class Line:
    """What was typed.

    Attributes:
        command: the command.
        options: name of a parameter -> its value.
        origins: name of a parameter -> where its value came from.
        code: flag that lets files run code -> its value.
    """

    command: str
    options: dict[str, Value]
    origins: dict[str, str]
    code: dict[str, Value] = field(default_factory=dict)

    @classmethod
    def of(cls, context: Any) -> Line | None:
        """Return the line of a command after the parsing; None for a command whose runs cannot go on."""
        params = {param.name: param for param in context.command.params if param.name not in _OF_A_CALL}
        if "resume" not in context.params:
            return None
        given = {name: _plain(context.params[name]) for name in params}
        options = _safe(given)
        code: dict[str, Value] = {
            _flag(params[name]): value for name, value in given.items() if name not in options and value
        }
        return cls(context.info_name, options, config.origins(context), code)

    @contextmanager
    def kept(self, settings: Writes) -> Iterator[None]:
        """Keep the line while a `with` block runs; an interrupt says how to go on.

        Args:
            settings: of the command.
        """
        if not processes.is_first():
            yield
            return
        target = settings.folder
        run = Started(self.command, self.options, self.origins, [*self.code], os.path.abspath(target))
        code = [_spelled(flag, value) for flag, value in self.code.items()]
        line = " ".join(["pfp", self.command, _spelled("--resume", str(target)), *code])
        with started(run, state_folder(self.command, target, settings.recorded())):
            try:
                yield
            except (KeyboardInterrupt, Interrupted) as error:
                raise Interrupted(getattr(error, "exit_code", INTERRUPTED), f"go on with `{line}`") from error

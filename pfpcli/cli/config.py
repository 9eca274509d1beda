"""The config file: defaults of options, in pfp.toml or in the table [tool.pfp] of pyproject.toml in the current folder.

Keys are the names of flags without their dashes. A key in the table of a command, such as [compress], is for that
command; any other key is for all commands that have the flag. The command line wins. Unknown keys and values of another
type are errors, wherever they stand in the file.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import signature
from pathlib import Path
from typing import Any, get_args

from pfpcli.amounts import COUNTED
from pfpcli.errors import InputError, PfpError
from pfpcli.records.reused_settings import BUILDERS

#: File -> the table in it that is for pfp. Of several files, the first one counts.
_TABLES = {"pfp.toml": (), "pyproject.toml": ("tool", "pfp")}
#: Flag -> why it is for the command line alone: a file may come from somebody else.
_TYPED = {
    "trust": "it lets files run code",
    "metric": "it runs a file",
    "show-settings": "it shows them and stops",
}
#: Flags of which one replaces the others: a file's value gives way to the command line's.
_EXCLUSIVE = (("keep", "epsilon", "plan", *COUNTED),)
#: The largest number that TOML guarantees.
_LARGEST = 2**63 - 1
#: Under this key, the metadata of a context has the origin of each parameter that a file sets.
_ORIGINS = "pfpcli.origins"
#: Under this key, it has the origins that were kept with a run.
_KEPT = "pfpcli.kept"

#: Type of an option -> the types that a file may give it, what is expected in words, and an example.
_TYPES: dict[Any, tuple[tuple[type, ...], str, str]] = {
    bool: ((bool,), "true or false", "true"),
    int: ((int,), "a whole number", "3"),
    float: ((int, float), "a number", "0.5"),
    Path: ((str,), "a path in quotes", '"folder/file"'),
    str: ((str, int, float, list), "a text in quotes, a number or a list", '"value"'),
    list[str]: ((str, list), "a text in quotes or a list of them", '["a", "b"]'),
}


@dataclass(frozen=True)
class Config:
    """The part of a file that is for pfp.

    Attributes:
        name: name of the file, and of the table in it: "pyproject.toml [tool.pfp]".
        prefix: what stands before the name of a command in the name of its table: "tool.pfp.".
        table: its keys and values.
    """

    name: str
    prefix: str
    table: Mapping[str, Any]

    def named(self, command: str = "") -> str:
        """Return what the table of a command is called in messages, that of all commands without one."""
        file = self.name.partition(" ")[0]
        return f"{file} [{self.prefix}{command}]" if command else self.name


def find(folder: Path) -> Config | None:
    """Return the config of a folder; None where it has none.

    Raises:
        InputError: a file is not TOML, or its table is none.
    """
    for name, keys in _TABLES.items():
        path = folder / name
        if not path.is_file():
            continue
        try:
            table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:  # not UTF-8, not TOML, or nested too deeply
            why = error.strerror if isinstance(error, OSError) else error
            raise InputError(f"{name}: not a TOML file that can be read ({why})", "mend it, or remove it") from error
        for key in keys:
            table = table.get(key, {}) if isinstance(table, dict) else {}
        if table or not keys:
            if not isinstance(table, dict):
                raise InputError(f"{name}: tool.pfp is no table", "write `[tool.pfp]` in a line of its own")
            return Config(f"{name} [{'.'.join(keys)}]" if keys else name, "".join(f"{key}." for key in keys), table)
    return None


def apply(context: Any, config: Config | None) -> None:
    """Let a file's values be the defaults of a command.

    Args:
        context: of the command, before its arguments are parsed; its defaults change.
        config: the file; None changes nothing.

    Raises:
        InputError: a key is unknown, or a value has another type.
    """
    if config is None:
        return
    commands: Mapping[str, Any] = context.parent.command.commands if context.parent else {}
    commands = {**commands, context.info_name: context.command}
    found, origins = {}, {}
    for table, command, key, value in _entries(config, commands):
        options = _options(commands[command]) if command else _all_options(commands)
        if key not in options:
            raise _unknown(table, key, [*options, *(() if command else commands)])
        typed = _typed(table, key, value, options[key].kind)
        own = _options(context.command).get(key)
        if own is not None and command in ("", context.info_name):
            # tables of commands come after the keys for all commands, so they win
            found[own.name], origins[own.name] = typed, table
    context.default_map, context.meta[_ORIGINS] = found, origins


def settle(context: Any) -> None:
    """Drop a file's value of a flag where the command line has the flag that replaces it; after the parsing."""
    for group in _EXCLUSIVE:
        typed = [name for name in group if source(context, name) == "COMMANDLINE"]
        for name in group:
            if typed and source(context, name) == "DEFAULT_MAP":
                context.params[name] = None
                context.meta[_ORIGINS].pop(name)


def origins(context: Any) -> dict[str, str]:
    """Return where the values of a command's parameters came from; those with their defaults are left out.

    Args:
        context: of the command, after its arguments were parsed.

    Returns:
        Name of a parameter -> "command line", or the file and its table.
    """
    files, kept = (context.meta.get(key, {}) for key in (_ORIGINS, _KEPT))
    typed = {name: "command line" for name in context.params if source(context, name) == "COMMANDLINE"}
    return {**files, **kept, **typed}


def remember(context: Any, found: Mapping[str, str]) -> None:
    """Let the origins that were kept with a run be those of the parameters of a command."""
    context.meta[_KEPT] = found


@contextmanager
def naming_the_file(context: Any) -> Iterator[None]:
    """Let errors about a flag name the file, if the value of the flag is the file's."""
    try:
        yield
    except PfpError as error:
        files: Mapping[str, str] = context.meta.get(_ORIGINS, {})
        for key, option in _options(context.command).items():
            rest = error.message.removeprefix(f"--{key}")
            is_about = rest != error.message and rest[:1] in (" ", ":")
            if is_about and option.name in files and source(context, option.name) != "COMMANDLINE":
                raise type(error)(f"{files[option.name]}: {error.message[2:]}", error.hint) from error
        raise


def source(context: Any, name: str) -> str:
    """Return where the value of a parameter came from, as click names it, e.g. "COMMANDLINE"."""
    return str(getattr(context.get_parameter_source(name), "name", ""))


def _entries(config: Config, commands: Mapping[str, Any]) -> Iterator[tuple[str, str, str, Any]]:
    """Yield (name of the table, command or "", key, value): the keys for all commands first."""
    tables = {key: value for key, value in config.table.items() if isinstance(value, dict) and key in commands}
    for key, value in config.table.items():
        if key not in tables:
            yield config.named(), "", key, value
    for command, table in tables.items():
        for key, value in table.items():
            yield config.named(command), command, key, value


@dataclass(frozen=True)
class _Option:
    """An option of a command: the name of its parameter, and its type, one of `_TYPES`."""

    name: str
    kind: Any


def _options(command: Any) -> dict[str, _Option]:
    """Key in a file -> option of a command."""
    annotations = signature(command.callback, eval_str=True).parameters
    found: dict[str, _Option] = {}
    for param in command.params:
        if param.param_type_name == "option":
            kind = get_args(annotations[param.name].annotation)[0]
            kind = next(each for each in _TYPES if kind in (each, each | None))
            found |= {name[2:]: _Option(param.name, kind) for name in param.opts if name.startswith("--")}
    return found


def _all_options(commands: Mapping[str, Any]) -> dict[str, _Option]:
    return {key: option for command in commands.values() for key, option in _options(command).items()}


def _unknown(table: str, key: str, known: list[str]) -> InputError:
    close = get_close_matches(key.lstrip("-").replace("_", "-"), known, 1)
    hint = f"did you mean `{close[0]}`?" if close else "keys are names of flags without dashes: `pfp COMMAND --help`"
    return InputError(f"{table}: unknown key {key}", hint)


def _integers(value: Any) -> Iterator[int]:
    """Yield the integers in a value, in its lists and tables too."""
    if isinstance(value, int):
        yield value
    for each in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _integers(each)


def _typed(table: str, key: str, value: Any, kind: Any) -> Any:
    """Return a value as the command line would have given it.

    Raises:
        InputError: it has another type, or belongs on the command line.
    """
    if key in _TYPED:
        raise InputError(f"{table}: {key} is for the command line alone: {_TYPED[key]}", f"type `--{key}` instead")
    types, expected, example = _TYPES[kind]
    if any(abs(number) > _LARGEST for number in _integers(value)):  # Python does not show numbers of any length
        raise InputError(
            f"{table}: {key}: a number of more than 64 bits, expected {expected}", f"for example `{key} = {example}`"
        )
    if key == "arch" and not str(value).startswith(BUILDERS):
        raise InputError(
            f"{table}: arch = {value!r} would run a module; a file may name architectures of torchvision and timm only",
            f"type it: `--arch {value}`",
        )
    if key == "arch-kwargs" and isinstance(value, dict):
        try:
            return json.dumps(value)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{table}: arch-kwargs: {error}", "for example `arch-kwargs = {num_classes = 10}`"
            ) from error
    parts = value if isinstance(value, list) else [value]
    inner = (str,) if kind == list[str] else (str, int, float)
    fits = isinstance(value, types) and (not isinstance(value, list) or all(isinstance(part, inner) for part in parts))
    if not fits or any(isinstance(part, bool) for part in parts) != (kind is bool):
        raise InputError(f"{table}: {key} = {value!r}: expected {expected}", f"for example `{key} = {example}`")
    if kind == list[str]:
        return parts
    return ",".join(map(str, parts)) if kind is str else value

"""Building blocks of flags: help panels, choices with suggestions, and the flags that every command has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from inspect import Parameter, Signature, signature
from typing import Annotated, Any

import typer

from pfpcli.cli.config import origins
from pfpcli.errors import InputError
from pfpcli.settings import NetworkSettings

COLORS = ("auto", "always", "never")

#: The help panel that every command has.
OUTPUT = "Output"


@dataclass
class Asked:
    """The flags that decide how an error is printed, as far as they were parsed before the error."""

    color: str = "auto"
    verbose: bool = False


def one_of(choices: Sequence[str]) -> Callable[[typer.CallbackParam, str], str]:
    """Make a callback that refuses a value which is not one of the choices."""

    def check(param: typer.CallbackParam, value: str) -> str:
        if value is None or value in choices:
            return value
        close = get_close_matches(value, choices, 1)
        hint = f"did you mean `{param.opts[0]} {close[0]}`?" if close else ""
        raise InputError(f"{param.opts[0]} {value}: expected one of {', '.join(choices)}", hint)

    return check


def remember(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Store a flag that decides how errors are printed, as soon as it is parsed."""
    if param.name == "color":
        one_of(COLORS)(param, value)
    if isinstance(ctx.obj, Asked):
        setattr(ctx.obj, str(param.name), value)
    return value


def flag(panel: str, text: str, *names: str, choices: Sequence[str] = (), **more: Any) -> Any:
    """Make an option that the help shows in a panel."""
    if choices:
        more = {"metavar": "|".join(choices), "autocompletion": lambda: list(choices), **more}
        more.setdefault("callback", one_of(choices))
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def switch(panel: str, text: str, *names: str, **more: Any) -> Any:
    """Make an option without a value."""
    return flag(panel, text, *names, metavar="", **more)


def setting(panel: str, name: str, text: str, of: type[NetworkSettings] = NetworkSettings, **more: Any) -> Any:
    """Make an option for a setting with a fixed set of values; `of` is the settings class."""
    return flag(panel, text, choices=of.choices()[name], **more)


Color = Annotated[str, flag(OUTPUT, "When to colour the output.", choices=COLORS, callback=remember, is_eager=True)]
Verbose = Annotated[
    bool,
    switch(
        OUTPUT, "Print tracebacks and the warnings of libraries.", "-v", "--verbose", callback=remember, is_eager=True
    ),
]
Json = Annotated[bool, switch(OUTPUT, "Print the record as JSON on stdout, and nothing else.", "--json")]

_Group = Callable[..., Any]
#: The parameter of a group that receives the context of the command.
_CONTEXT = "ctx"

#: Parameter of a command -> its setting, where that has another name.
_SETTINGS = {"no_cache": "cache", "no_augment": "augment", "data": "calib"}


def takes(*groups: _Group, **named: _Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of several groups.

    Args:
        groups: groups that return settings. The merged settings become the command's first argument, with their
            origins.
        named: groups whose return value becomes the keyword argument of that name.
    """

    def give(command: Callable[..., None]) -> Callable[..., None]:
        def called(ctx: typer.Context, **values: Any) -> None:
            def made(group: _Group) -> Any:
                names = signature(group).parameters
                return group(**{name: ctx if name == _CONTEXT else values.pop(name) for name in names})

            settings = {name: value for group in groups for name, value in made(group).items()}
            if settings:
                settings["origins"] = {_SETTINGS.get(name, name): each for name, each in origins(ctx).items()}
            command(settings, **{name: made(group) for name, group in named.items()}, **values)

        own = list(signature(command, eval_str=True).parameters.values())[1:]
        parameters = [
            Parameter(_CONTEXT, Parameter.KEYWORD_ONLY, annotation=typer.Context),
            *(parameter for group in groups for parameter in _parameters(group)),
            *(parameter for parameter in own if parameter.name not in named),
            *(parameter for group in named.values() for parameter in _parameters(group)),
        ]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters])  # type: ignore
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return give


def without(group: _Group, *names: str) -> _Group:
    """Return a group of options without some of its options, which keep their defaults."""

    def fewer(**values: Any) -> Any:
        return group(**values)

    kept = [parameter for parameter in _parameters(group) if parameter.name not in names]
    fewer.__signature__ = Signature(kept)  # type: ignore[attr-defined]
    return fewer


def _parameters(group: _Group) -> list[Parameter]:
    found = signature(group, eval_str=True).parameters
    return [parameter for name, parameter in found.items() if name != _CONTEXT]

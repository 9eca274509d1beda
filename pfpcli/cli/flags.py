"""Flags: what commands have in common on the command line, so that the same flag means the same everywhere."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Annotated, Any

import typer

from pfpcli.errors import InputError
from pfpcli.settings import Network

COLORS = ("auto", "always", "never")

#: The panel of the help that every command has.
OUTPUT = "Output"


@dataclass
class Asked:
    """What errors need to know about the command line, as far as it was read before they came up."""

    color: str = "auto"
    verbose: bool = False


def one_of(choices: Sequence[str]) -> Callable[[typer.CallbackParam, str], str]:
    """Check a value against its choices before anything else is done."""

    def check(param: typer.CallbackParam, value: str) -> str:
        if value in choices:
            return value
        close = get_close_matches(value, choices, 1)
        hint = f"did you mean `{param.opts[0]} {close[0]}`?" if close else ""
        raise InputError(f"{param.opts[0]} {value}: expected one of {', '.join(choices)}", hint)

    return check


def remember(ctx: typer.Context, param: typer.CallbackParam, value: Any) -> Any:
    """Note a flag that errors depend on as soon as it is read."""
    if param.name == "color":
        one_of(COLORS)(param, value)
    if isinstance(ctx.obj, Asked):
        setattr(ctx.obj, str(param.name), value)
    return value


def flag(panel: str, text: str, *names: str, choices: Sequence[str] = (), **more: Any) -> Any:
    """An option and the panel of the help it stands in."""
    if choices:
        more = {"metavar": "|".join(choices), "autocompletion": lambda: list(choices), **more}
        more.setdefault("callback", one_of(choices))
    return typer.Option(*names, help=text, rich_help_panel=panel, **more)


def switch(panel: str, text: str, *names: str, **more: Any) -> Any:
    """An option without a value."""
    return flag(panel, text, *names, metavar="", **more)


def setting(panel: str, name: str, text: str, of: type[Network] = Network, **more: Any) -> Any:
    """An option for a setting with a fixed set of values; of: the settings it belongs to."""
    return flag(panel, text, choices=of.choices()[name], **more)


Color = Annotated[str, flag(OUTPUT, "Colour what is printed.", choices=COLORS, callback=remember, is_eager=True)]
Verbose = Annotated[
    bool,
    switch(
        OUTPUT, "Show tracebacks and the warnings of libraries.", "-v", "--verbose", callback=remember, is_eager=True
    ),
]
Json = Annotated[bool, switch(OUTPUT, "Print the record as JSON on stdout, and nothing else there.", "--json")]

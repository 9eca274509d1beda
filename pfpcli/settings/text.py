"""Values as they are typed on the command line."""

from __future__ import annotations

import re
from typing import Any

from pfpcli.errors import InputError


def parse_keep(text: str) -> float:
    """Return `0.4` or `40%` as a fraction; its range is checked by the settings.

    Raises:
        InputError: it is not a number.
    """
    return parse_share("--keep", text, "0.4 or 40%", "keep two fifths of the parameters with `--keep 0.4`")


def parse_share(flag: str, text: str, like: str = "0.01 or 1%", hint: str = "") -> float:
    """Return `0.01` or `1%` as a fraction.

    Raises:
        InputError: it is not a number.
    """
    match = re.fullmatch(r"\s*([-+]?[\w.]+(?:[eE][-+]?\d+)?)\s*(%?)\s*", text)
    try:
        value = float(match[1]) if match else float(text)
    except ValueError:
        hint = hint or f"for example `{flag} {like.partition(' ')[0]}`"
        raise InputError(f"{flag} {text}: expected a number such as {like}", hint) from None
    return value / 100 if match and match[2] else value


def parse_numbers(flag: str, text: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Return comma-separated numbers, e.g. `3,224,224`.

    Raises:
        InputError: a part is not a number of that kind.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        example = "3,224,224" if kind is int else "0.485,0.456,0.406"
        raise InputError(
            f"{flag} {text}: expected numbers separated by commas", f"for example `{flag} {example}`"
        ) from None


def parse_names(text: str) -> tuple[str, ...]:
    """Return comma-separated names; `none` is no name."""
    return () if text == "none" else tuple(part.strip() for part in text.split(","))

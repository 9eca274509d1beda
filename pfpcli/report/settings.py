"""The page of `--show-settings`: the settings of a command, and where each came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pfpcli.report.page import Page


def render(settings: Mapping[str, Any], origins: Mapping[str, str], *, width: int = 80, unicode: bool = True) -> str:
    """Return a line for each setting: its name, its value and its origin.

    keep       0.4      command line
    criterion  l1       pfp.toml [compress]
    seed       0        default

    Args:
        settings: name -> value.
        origins: name -> where the value came from; a setting that is not there has its default.
        width: number of columns.
        unicode: whether characters beyond ASCII may be used.
    """
    page = Page(width, unicode)
    rows = [(name.replace("_", "-"), _value(value), origins.get(name, "default")) for name, value in settings.items()]
    page.table(rows, "<<<", shrink=1)
    return page.text()


def _value(value: Any) -> str:
    if value is None or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)

"""The frame of every page: its templates, which escape what they are given."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

from pfpcli.report.page import spell

if TYPE_CHECKING:
    from jinja2 import Environment


def fill(template: str, **views: Any) -> str:
    """Return a page as HTML.

    Args:
        template: name of its file in the folder of templates.
        views: what it shows.

    Raises:
        LookupError: it shows a key that a record lacks.
    """
    from jinja2 import UndefinedError

    try:
        page: str = _environment().get_template(template).render(**views)
    except UndefinedError as error:
        raise LookupError(error.message) from error
    return page


@cache
def _environment() -> Environment:
    """Return the templates, each of which is compiled once a process: that takes longer than to fill it."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        auto_reload=False,
    )


def _printable(value: Any) -> Any:
    """Return a text without characters that no file or reader may be given; parts of a page are left as they are."""
    return spell(value, unicode=True) if type(value) is str else value

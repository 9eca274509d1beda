"""The frame of every page: its templates, which escape what they are given."""

from __future__ import annotations

from typing import Any

from pfpcli.report.page import spell


def fill(template: str, **views: Any) -> str:
    """Return a page as HTML.

    Args:
        template: name of its file in the folder of templates.
        views: what it shows.

    Raises:
        LookupError: it shows a key that a record lacks.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined, UndefinedError

    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    try:
        page: str = environment.get_template(template).render(**views)
    except UndefinedError as error:
        raise LookupError(error.message) from error
    return page


def _printable(value: Any) -> Any:
    """Return a text without characters that no file or reader may be given; parts of a page are left as they are."""
    return spell(value, unicode=True) if type(value) is str else value

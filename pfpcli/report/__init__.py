"""Reports: documents as text for people.

This package is given the documents of `pfpcli.records` and returns text: pages for a terminal, Markdown and SVG. Each
format is a pure function of a document. It imports `pfpcli.records` and `pfpcli.errors` only, and no torch. Colour is
added by the command line.

kinds          which of the next three modules reports on which record
run            the report on a run of `pfp compress`
run_layers     its table of layers
run_groups     its lines on groups that were not pruned
sparse_run     the report on a run of `pfp sparsify`
tuned_run      the report on a run of `pfp finetune`
html           the page of any run, report.html
markdown       the report on any run as Markdown
tables         tables of a run as CSV
unlucky_widths widths that are slower than the next larger one
inspection     the page of `pfp inspect`
ranking        the page of `pfp score`
comparison     the table, Markdown and chart of `pfp compare-criteria`
certificate    the errors of layers, for `pfp report --all` and `pfp certify`
precision      the table of files of lower precisions
robustness     the table of damaged images
verified       the page of `pfp verify`
compared_runs  the page of `pfp compare`, as Markdown and as CSV
measures       measures of runs as text, and which runs break a limit
settings       the page of `--show-settings`
planned        the page of `pfp plan`
falls          falls of a metric, and the search for the smallest network within one
parts          parts that the reports on all runs share
page           lines of text that fit a width and a character set
numbers        numbers as text
chart          line charts as SVG
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfpcli.records.runs import AnyRun, Record
from pfpcli.report import markdown
from pfpcli.report.kinds import KINDS


def render(run: Record, **options: Any) -> str:
    """Return the report on a run; its options are folder, width, everything and unicode, as in `run.render`."""
    text: str = KINDS[type(run)].render(run, **options)
    return text


def summary(run: Record, **options: Any) -> str:
    """Return the last lines of a command; the options are folder, width and unicode, as in `run.summary`."""
    text: str = KINDS[type(run)].summary(run, **options)
    return text


def verdict(run: Record) -> str:
    """Return one line that says whether the run passed its checks."""
    text: str = KINDS[type(run)].verdict(run)
    return text


def page(run: AnyRun, **options: Any) -> str:
    """Return the page of a run as HTML; its option is details, as in `html.page.render`."""
    from pfpcli.report.html.page import render as as_html  # its templates take longer to import than all the rest

    return as_html(run, **options)


#: Name of a format -> the function that renders a run in it.
REPORTS: dict[str, Callable[..., str]] = {"terminal": render, "markdown": markdown.render, "html": page}

"""Reports: documents as text for people.

This package is given the documents of `pfpcli.records` and returns text: pages for a terminal, Markdown and SVG. Each
format is a pure function of a document. It imports `pfpcli.records` and `pfpcli.errors` only, and no torch. Colour is
added by the command line.

run          the report on a run of `pfp compress`
run_layers   its table of layers
run_groups   its lines on groups that were not pruned
sparse_run   the report on a run of `pfp sparsify`
tuned_run    the report on a run of `pfp finetune`
inspection   the page of `pfp inspect`
ranking      the page of `pfp score`
sweep        the table of `pfp sweep`
planned      the page of `pfp plan`
comparison   the table, Markdown and chart of `pfp compare-criteria`
certificate  the errors of layers, for `pfp report --all` and `pfp certify`
precision    the table of files of lower precisions
robustness   the table of damaged images
falls        falls of a metric, and the search for the smallest network within one
parts        parts that the reports on all runs share
page         lines of text that fit a width and a character set
numbers      numbers as text
chart        line charts as SVG
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pfpcli.records.runs import Record, Run, SparseRun, TunedRun
from pfpcli.report import run as compress_run
from pfpcli.report import sparse_run, tuned_run

#: Type of a record -> the module that reports on it.
_KINDS: dict[type[Record], Any] = {Run: compress_run, SparseRun: sparse_run, TunedRun: tuned_run}


def render(run: Record, **options: Any) -> str:
    """Return the report on a run; its options are folder, width, everything and unicode, as in `run.render`."""
    text: str = _KINDS[type(run)].render(run, **options)
    return text


def summary(run: Record, **options: Any) -> str:
    """Return the last lines of a command; the options are folder, width and unicode, as in `run.summary`."""
    text: str = _KINDS[type(run)].summary(run, **options)
    return text


def verdict(run: Record) -> str:
    """Return one line that says whether the run passed its checks."""
    text: str = _KINDS[type(run)].verdict(run)
    return text


#: Name of a format -> the function that renders a run in it.
REPORTS: dict[str, Callable[..., str]] = {"terminal": render}

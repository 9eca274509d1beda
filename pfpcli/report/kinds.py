"""Kinds of runs: which module reports on which type of record."""

from __future__ import annotations

from typing import Any

from pfpcli.records.runs import Record, Run, SparseRun, TunedRun
from pfpcli.report import run as compress_run
from pfpcli.report import sparse_run, tuned_run

#: Type of a record -> the module that reports on it; each has `render`, `summary`, `verdict`, `figures` and `notes`.
KINDS: dict[type[Record], Any] = {Run: compress_run, SparseRun: sparse_run, TunedRun: tuned_run}

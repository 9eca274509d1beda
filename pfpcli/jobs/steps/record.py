"""Record: write the files of a run that are made from everything else: its record, its details and its page."""

from __future__ import annotations

from pathlib import Path

from pfpcli.records.details import Details
from pfpcli.records.folders import FILES
from pfpcli.records.runs import AnyRun
from pfpcli.report import REPORTS


def write_record(run: AnyRun, details: Details, folder: Path) -> None:
    """Write run.json, details.json and report.html into a run folder."""
    (folder / FILES["run"]).write_text(run.json(), encoding="utf-8")
    (folder / FILES["details"]).write_text(details.json(compact=True), encoding="utf-8")
    (folder / FILES["page"]).write_text(REPORTS["html"](run, details=details), encoding="utf-8")

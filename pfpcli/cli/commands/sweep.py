"""`pfp sweep`: several budgets of one model, one run folder for each."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, takes, without
from pfpcli.cli.options import BUDGET, budget, resuming, session
from pfpcli.cli.output_options import gate
from pfpcli.cli.pruning_options import HOW, WHAT
from pfpcli.cli.result_options import precisions
from pfpcli.cli.session import Session, width
from pfpcli.records.folders import SWEEP_PAGE
from pfpcli.report.compared_runs import render
from pfpcli.settings import SweepSettings
from pfpcli.settings.text import parse_keep


@command(
    "MODEL --calib DIR --keep R,… [OPTIONS]",
    "pfp sweep model.pt --calib ./imgs --keep 0.8,0.6,0.4",
    "pfp sweep model.pt --calib ./imgs --keep-of macs --keep 0.7,0.5",
    "pfp sweep model.pt --calib ./imgs --keep 0.8,0.6 --out widths --json",
    "pfp sweep model.pt --calib ./imgs --keep 0.8,0.6,0.4 --int8",
    "pfp sweep --resume widths",
)
@takes(*WHAT, gate, without(budget, "keep", "epsilon"), *HOW, precisions, resuming, session=session)
def sweep(
    given: dict[str, Any],
    *,
    keep: Annotated[str, flag(BUDGET, "Fractions to keep, separated by commas, e.g. 0.8,0.6,0.4.", metavar="R,…")],
    out: Annotated[
        Path | None, flag(OUTPUT, "Folder for the run folders. Default: one in pfp-runs.", metavar="DIR")
    ] = SweepSettings.out,
    session: Session,
) -> None:
    """Compress MODEL to several budgets: scores it once, writes a run folder for each, and shows them in one table."""
    settings = SweepSettings(**given, keeps=tuple(map(parse_keep, keep.split(","))), out=out)
    finished = session.run("sweep", settings)
    found, folder = finished.record, finished.folder
    if session.as_json:
        session.json(found, folder)
        return
    page = session.stdout()
    page.write(render(found, width=width(), unicode=page.unicode).removesuffix("\n"))
    if not session.quiet:
        last = Path(folder, found.runs[-1].name)
        next_step = f"pfp report {shlex.quote(str(last))}, or open {SWEEP_PAGE}"
        session.stderr().write(f"wrote {folder}/    next: {next_step}")

"""`pfp compare-criteria`: compare criteria on one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, setting, takes
from pfpcli.cli.options import (
    BUDGET,
    SCORING,
    Allocate,
    checkpoint,
    images,
    judging,
    machine,
    network,
    resuming,
    samples,
    scoring,
    session,
)
from pfpcli.cli.output_options import outputs
from pfpcli.cli.session import Session, width
from pfpcli.report import comparison
from pfpcli.settings import CompareCriteriaSettings
from pfpcli.settings.text import parse_keep, parse_names


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp compare-criteria model.pt --calib ./imgs",
    "pfp compare-criteria model.pt --calib ./imgs --criteria pfp,l1,random",
    "pfp compare-criteria model.pt --calib ./imgs --keeps 0.8,0.6,0.4",
    "pfp compare-criteria --resume model-criteria",
)
@takes(checkpoint, network, outputs, images, judging, samples, scoring, machine, resuming, session=session)
def compare_criteria(
    given: dict[str, Any],
    *,
    criteria: Annotated[
        str | None, flag(SCORING, "Criteria, separated by commas. Default: all.", metavar="NAME,…")
    ] = None,
    keeps: Annotated[str, flag(BUDGET, "Fractions to keep, separated by commas.", metavar="R,…")] = ",".join(
        f"{keep:g}" for keep in CompareCriteriaSettings.keeps
    ),
    keep_of: Annotated[
        str, setting(BUDGET, "keep_of", "What --keeps counts: parameters or multiply-adds.", CompareCriteriaSettings)
    ] = CompareCriteriaSettings.keep_of,
    allocate: Allocate = CompareCriteriaSettings.allocate,
    out: Annotated[
        Path | None, flag(OUTPUT, "Folder for the table and the chart. Default: one in pfp-runs.", metavar="DIR")
    ] = CompareCriteriaSettings.out,
    session: Session,
) -> None:
    """Prune MODEL by several criteria at several budgets and compare the results. Recovers nothing."""
    settings = CompareCriteriaSettings(
        **given,
        criteria=CompareCriteriaSettings.criteria if criteria is None else parse_names(criteria),
        keeps=tuple(parse_keep(keep) for keep in keeps.split(",")),
        keep_of=keep_of,
        allocate=allocate,
        out=out,
    )
    finished = session.run("compare_criteria", settings)
    found, folder = finished.record, finished.folder
    if session.as_json:
        session.json(found, folder)
        return
    page = session.stdout()
    page.write(comparison.render(found, width=width(), unicode=page.unicode).removesuffix("\n"))
    if not session.quiet:
        session.stderr().write(f"wrote {folder}/  {'  '.join(sorted(comparison.FILES))}")

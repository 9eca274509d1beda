"""`pfp compare-criteria`: compare criteria on one model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, setting
from pfpcli.cli.options import (
    BUDGET,
    SCORING,
    checkpoint,
    images,
    judging,
    machine,
    network,
    samples,
    scoring,
    takes,
    talking,
)
from pfpcli.cli.session import Talk, width
from pfpcli.report import comparison
from pfpcli.settings import Compare, parse_keep


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp compare-criteria model.pt --calib ./imgs",
    "pfp compare-criteria model.pt --calib ./imgs --criteria pfp,l1,random",
    "pfp compare-criteria model.pt --calib ./imgs --keeps 0.8,0.6,0.4",
)
@takes(checkpoint, network, images, judging, samples, scoring, machine, talk=talking)
def compare_criteria(
    given: dict[str, Any],
    *,
    criteria: Annotated[
        str | None, flag(SCORING, "Criteria, separated by commas. Default: all.", metavar="NAME,…")
    ] = None,
    keeps: Annotated[str, flag(BUDGET, "Fractions to keep, separated by commas.", metavar="R,…")] = ",".join(
        f"{keep:g}" for keep in Compare.keeps
    ),
    keep_of: Annotated[
        str, setting(BUDGET, "keep_of", "What --keeps counts: parameters or multiply-adds.")
    ] = Compare.keep_of,
    out: Annotated[
        Path | None, flag(OUTPUT, "Folder for the table and the chart. Default: one in pfp-runs.", metavar="DIR")
    ] = Compare.out,
    talk: Talk,
) -> None:
    """Prune MODEL by several criteria at several budgets and compare the results. Recovers nothing."""
    settings = Compare(
        **given,
        criteria=Compare.criteria if criteria is None else tuple(name.strip() for name in criteria.split(",")),
        keeps=tuple(parse_keep(keep) for keep in keeps.split(",")),
        keep_of=keep_of,
        out=out,
    )
    found, folder = talk.run("compare_criteria", settings)
    if talk.as_json:
        talk.json(found)
        return
    page = talk.page()
    page.write(comparison.render(found, width=width(), unicode=page.unicode).removesuffix("\n"))
    if not talk.quiet:
        talk.beside().write(f"wrote {folder}/  {'  '.join(sorted(comparison.FILES))}")

"""`pfp plan`: show what would be cut, and write it as plan.json."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

from pfpcli.cli.amount_options import amounts
from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch, takes
from pfpcli.cli.options import budget, session
from pfpcli.cli.pruning_options import HOW, WHAT
from pfpcli.cli.session import Session, width
from pfpcli.report import planned
from pfpcli.settings import CompressSettings


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp plan model.pt --calib ./imgs --keep 0.4",
    "pfp plan model.pt --calib ./imgs --keep-of macs --out macs.json",
    "pfp compress model.pt --calib ./imgs --plan macs.json",
)
@takes(*WHAT, budget, amounts, *HOW, session=session)
def plan(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all layers.", "--all")] = False,
    out: Annotated[
        Path | None, flag(OUTPUT, "File to write. Default: one in this folder, named after the model.", metavar="FILE")
    ] = CompressSettings.out,
    session: Session,
) -> None:
    """Plan how MODEL would be cut, show it, and write plan.json for `pfp compress --plan`. Cuts nothing."""
    settings = CompressSettings(**given, out=out)
    finished = session.run("plan", settings)
    found, file = finished.record, finished.folder
    if session.as_json:
        session.json(found, file)
        return
    page = session.stdout()
    text = planned.render(found, width=width(), everything=everything, unicode=page.unicode)
    page.write(text.removesuffix("\n"))
    if not session.quiet:
        typed = " ".join(shlex.quote(str(each)) for each in (settings.model, "--calib", settings.calib, "--plan", file))
        session.stderr().write(f"wrote {file}    next: pfp compress {typed}")

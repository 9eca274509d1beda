"""`pfp compress`: the whole job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.commands.app import command
from pfpcli.commands.flags import OUTPUT, flag
from pfpcli.commands.options import (
    budget,
    checkpoint,
    criterion,
    images,
    judging,
    machine,
    network,
    scoring,
    takes,
    talking,
)
from pfpcli.commands.talk import Talk, width
from pfpcli.report.terminal import summary, verdict
from pfpcli.settings import Settings


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp compress model.pt --calib ./imgs --keep 0.4",
    "pfp compress weights.pth --arch torchvision:resnet18 --calib ./imgs",
    "pfp compress model.pt --calib ./imgs --keep-of macs --freeze 'head*'",
    "pfp compress model.pt --calib ./imgs --out small --json > run.json",
)
@takes(checkpoint, network, images, judging, budget, criterion, scoring, machine, talk=talking)
def compress(
    given: dict[str, Any],
    *,
    out: Annotated[
        Path | None, flag(OUTPUT, "Run folder; otherwise one in pfp-runs named after the model.", metavar="DIR")
    ] = Settings.out,
    talk: Talk,
) -> None:
    """Prune MODEL to a fraction of its parameters and write the smaller network to a run folder."""
    settings = Settings(**given, out=out)
    finished, folder = talk.run("compress", settings)
    if talk.as_json:
        talk.json(finished)
    elif not talk.quiet:
        talk.beside().write("")
        page = talk.page()
        page.write(summary(finished, folder=folder, width=width(), unicode=page.unicode).removesuffix("\n"))
    if finished.status != "ok":
        if talk.as_json or talk.quiet:
            talk.beside().write(verdict(finished))
        raise typer.Exit(1)

"""`pfp certify`: check the error bounds of a run on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, switch
from pfpcli.cli.options import images, machine, network, takes, talking
from pfpcli.cli.session import Talk, width
from pfpcli.errors import InputError
from pfpcli.records import record
from pfpcli.records.reused_settings import remembered
from pfpcli.report import certificate
from pfpcli.settings import Certify


def _run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `pfp compress` wrote.")],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="Checkpoint that RUN pruned. Default: the file of that name in this folder."
        ),
    ] = None,
) -> dict[str, Any]:
    found = record.read(run)
    if model is None:
        model = Path(found.model["name"])
        if not model.is_file():
            raise InputError(
                f"{run.name}: made of {found.model['name']}, which is not in this folder",
                f"name it: `pfp certify {run} MODEL --calib DIR`",
            )
    return {"run": run, "model": model}


@command(
    "RUN [MODEL] --calib DIR [OPTIONS]",
    "pfp certify pfp-runs/model-keep0.40 model.pt --calib ./other",
    "pfp certify pfp-runs/model-keep0.40 model.pt --calib ./other --json",
)
@takes(_run, network, images, machine, talk=talking)
def certify(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all layers.", "--all")] = False,
    talk: Talk,
) -> None:
    """Measure the layer errors of RUN on other images and compare them with its bounds. Writes nothing."""
    settings = Certify(**{**given, **remembered(given)})
    found = talk.run("certify", settings)
    if talk.as_json:
        talk.json(found)
    else:
        page = talk.page()
        text = certificate.render(found, width=width(), everything=everything, unicode=page.unicode)
        page.write(text.removesuffix("\n"))
    if any(row.is_above for row in found.layers):
        raise typer.Exit(1)

"""`pfp certify`: check the error bounds of a run on other images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, switch, takes
from pfpcli.cli.options import images, machine, network, session
from pfpcli.cli.output_options import outputs
from pfpcli.cli.session import Session, width
from pfpcli.errors import InputError
from pfpcli.records.reading import read
from pfpcli.records.reused_settings import reused_settings
from pfpcli.report import certificate
from pfpcli.settings import CertifySettings


def _run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `pfp compress` wrote.")],
    model: Annotated[
        Path | None,
        typer.Argument(
            metavar="MODEL", help="Checkpoint that RUN pruned. Default: the file of that name in this folder."
        ),
    ] = None,
) -> dict[str, Any]:
    found = read(run)
    if model is None:
        model = Path(Path(found.model["name"]).name)  # a file in this folder, whatever the record says
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
@takes(_run, network, outputs, images, machine, session=session)
def certify(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all layers.", "--all")] = False,
    session: Session,
) -> None:
    """Measure the layer errors of RUN on other images and compare them with its bounds. Writes nothing."""
    settings = CertifySettings(**{**given, **reused_settings(given)})
    found = session.run("certify", settings)
    if session.as_json:
        session.json(found)
    else:
        page = session.stdout()
        text = certificate.render(found, width=width(), everything=everything, unicode=page.unicode)
        page.write(text.removesuffix("\n"))
    if any(row.is_above for row in found.layers):
        raise typer.Exit(1)

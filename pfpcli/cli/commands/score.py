"""`pfp score`: print the scores from which a plan is made."""

from __future__ import annotations

from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, switch, takes
from pfpcli.cli.options import checkpoint, criterion, images, machine, network, samples, scoring, session
from pfpcli.cli.output_options import outputs
from pfpcli.cli.session import Session, width
from pfpcli.errors import InputError
from pfpcli.report import ranking
from pfpcli.settings import ScoreSettings


@command(
    "MODEL --calib DIR [OPTIONS]",
    "pfp score model.pt --calib ./imgs",
    "pfp score model.pt --calib ./imgs --criterion l1 --csv > scores.csv",
    "pfp score model.pt --calib ./arrays --preprocess none --json",
)
@takes(checkpoint, network, outputs, images, criterion, samples, scoring, machine, session=session)
def score(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all groups and layers.", "--all")] = False,
    as_csv: Annotated[bool, switch(OUTPUT, "Print every score as CSV: kind, name, channel, score.", "--csv")] = False,
    session: Session,
) -> None:
    """Score the channels of MODEL and print the scores. Prunes nothing."""
    if as_csv and session.as_json:
        raise InputError("--csv --json: two formats", "give one of them")
    found = session.run("score", ScoreSettings(**given))
    page = session.stdout()
    if session.as_json:
        session.json(found)
    elif as_csv:
        page.write(found.csv().removesuffix("\n"))
    else:
        text = ranking.render(found, width=width(), everything=everything, unicode=page.unicode)
        page.write(text.removesuffix("\n"))

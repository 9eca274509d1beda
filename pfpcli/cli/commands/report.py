"""`pfp report`: show the record of a run. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import COLORS, OUTPUT, Color, Json, Verbose, flag, switch, takes
from pfpcli.cli.limit_options import limits
from pfpcli.cli.session import Session, width
from pfpcli.errors import CheckFailed, InputError
from pfpcli.records.folders import newest
from pfpcli.records.measures import Limit
from pfpcli.records.reading import incomplete, read, read_details
from pfpcli.report import REPORTS, measures
from pfpcli.report.tables import TABLES


@command(
    "[RUN] [OPTIONS]",
    "pfp report",
    "pfp report pfp-runs/model-keep0.40 --all",
    "pfp report --json > run.json",
    "pfp report --md > comment.md",
    "pfp report --csv layers > layers.csv",
    "pfp report --fail-over drop=1%",
)
@takes(limits=limits)
def report(
    given: dict[str, str],
    *,
    run: Annotated[
        Path | None,
        typer.Argument(metavar="RUN", help="Run folder or its run.json. Default: the newest in pfp-runs."),
    ] = None,
    everything: Annotated[
        bool, switch(OUTPUT, "Show all layers, names and reasons, and how the run was made.", "--all")
    ] = False,
    as_html: Annotated[
        bool, switch(OUTPUT, "Print the page of the run, as in report.html, and nothing else.", "--html")
    ] = False,
    as_markdown: Annotated[
        bool, switch(OUTPUT, "Print the report as Markdown, fit for a pull request, and nothing else.", "--md")
    ] = False,
    table: Annotated[
        str | None,
        flag(OUTPUT, "Print a table as CSV, and nothing else.", "--csv", choices=tuple(TABLES)),
    ] = None,
    limits: list[Limit],
    as_json: Json = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> None:
    """Show what a run achieved, which layers became smaller, and what was not pruned."""
    asked = {"--html": as_html, "--md": as_markdown, "--csv": table is not None, "--json": as_json}
    formats = [name for name, is_asked in asked.items() if is_asked]
    if len(formats) > 1:
        raise InputError(f"{' '.join(formats)}: {len(formats)} formats", "give one of them")
    session = Session(as_json, False, verbose, color)
    path = run or newest()
    found = read(path)
    broken = measures.broken(limits, [(path.name, found)])
    page = session.stdout()
    folder = str(path if path.is_dir() else path.parent)
    try:
        if as_json:
            session.json(found)
        elif as_html:
            session.text(REPORTS["html"](found, details=read_details(path)))
        elif as_markdown:
            session.text(REPORTS["markdown"](found))
        elif table is not None:
            session.text(TABLES[table](found))
        else:
            text = REPORTS["terminal"](found, folder=folder, width=width(), everything=everything, unicode=page.unicode)
            page.write(text.removesuffix("\n"))
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise incomplete(path, error) from error
    if broken:
        raise CheckFailed("; ".join(broken))

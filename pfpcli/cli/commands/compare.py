"""`pfp compare`: runs side by side. Imports no torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import COLORS, OUTPUT, Color, Json, Verbose, switch, takes
from pfpcli.cli.limit_options import limits
from pfpcli.cli.session import Session, width
from pfpcli.errors import CheckFailed, InputError
from pfpcli.records import compared_runs
from pfpcli.records.folders import folder_of, page_from
from pfpcli.records.measures import Limit
from pfpcli.records.reading import incomplete, read
from pfpcli.report import measures
from pfpcli.report.compared_runs import as_csv, markdown, render
from pfpcli.report.html import runs as runs_page


@command(
    "RUN… [OPTIONS]",
    "pfp compare pfp-runs/*",
    "pfp compare pfp-runs/model-keep0.40 pfp-runs/model-keep0.60 --all",
    "pfp compare pfp-runs/* --fail-under accuracy=90% --fail-over latency=5",
    "pfp compare pfp-runs/* --csv > runs.csv",
    "pfp compare pfp-runs/* --html > runs.html",
)
@takes(limits=limits)
def compare(
    given: dict[str, str],
    *,
    runs: Annotated[list[Path], typer.Argument(metavar="RUN…", help="Run folders or their run.json.")],
    everything: Annotated[bool, switch(OUTPUT, "Show all differences.", "--all")] = False,
    as_html: Annotated[
        bool, switch(OUTPUT, "Print a page for browsers, whose points link to the pages of the runs.", "--html")
    ] = False,
    as_markdown: Annotated[bool, switch(OUTPUT, "Print the tables as Markdown.", "--md")] = False,
    csv: Annotated[bool, switch(OUTPUT, "Print one line for each run as CSV.", "--csv")] = False,
    limits: list[Limit],
    as_json: Json = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> None:
    """Show runs side by side: quality, costs, the front of the best ones, and what differs."""
    asked = {"--html": as_html, "--md": as_markdown, "--csv": csv, "--json": as_json}
    formats = [flag for flag, wanted in asked.items() if wanted]
    if len(formats) > 1:
        raise InputError(f"{' '.join(formats)}: {len(formats)} formats", "give one of them")
    records = [(path, read(path)) for path in runs]
    for path, run in records:
        try:
            render(compared_runs.compare([(path, run)]))  # alone, so that the error names the run
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise incomplete(path, error) from error
    found = compared_runs.compare(records)
    names = [each.name for each in found.runs]
    broken = measures.broken(limits, list(zip(names, (run for _, run in records), strict=True)))
    session = Session(as_json, False, verbose, color)
    page = session.stdout()
    if as_json:
        session.json(found)
    elif as_html:
        session.text(runs_page.render(found, [page_from(folder_of(path), Path()) for path in runs]))
    elif csv or as_markdown:
        page.write((as_csv if csv else markdown)(found).removesuffix("\n"))
    else:
        page.write(render(found, width=width(), everything=everything, unicode=page.unicode).removesuffix("\n"))
    if broken:
        raise CheckFailed("; ".join(broken))

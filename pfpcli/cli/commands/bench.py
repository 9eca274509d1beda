"""`pfp bench`: how fast networks are, and which differences are real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch, takes
from pfpcli.cli.input_options import loading
from pfpcli.cli.options import MACHINE, Threads, session
from pfpcli.cli.session import Session, width
from pfpcli.errors import InputError
from pfpcli.report import benched
from pfpcli.settings.bench import RUNTIMES, BenchSettings
from pfpcli.settings.text import parse_numbers


def _networks(
    models: Annotated[
        list[Path],
        typer.Argument(metavar="MODEL…", help="ONNX files, checkpoints and run folders, the first one first."),
    ],
) -> dict[str, Any]:
    return {"model": models[0], "others": tuple(models[1:])}


def _how(
    batch: Annotated[str, flag(MACHINE, "Batch sizes, separated by commas.", metavar="N,…")] = "1",
    threads: Threads = BenchSettings.threads,
    runtime: Annotated[str, flag(MACHINE, "What runs the networks.", choices=RUNTIMES)] = BenchSettings.runtime,
    provider: Annotated[
        str, flag(MACHINE, "Provider of onnxruntime, e.g. CUDAExecutionProvider.", metavar="NAME")
    ] = BenchSettings.provider,
) -> dict[str, Any]:
    batches = parse_numbers("--batch", batch, int)
    return {"batches": batches, "threads": threads, "runtime": runtime, "provider": provider}


@command(
    "MODEL… [OPTIONS]",
    "pfp bench net.onnx small/model.onnx",
    "pfp bench model.pt2 pfp-runs/model-keep0.40 --threads 1 --batch 1,8",
    "pfp bench net.onnx small.onnx --md >> comment.md",
)
@takes(_networks, loading, _how, session=session)
def bench(
    given: dict[str, Any],
    *,
    as_md: Annotated[bool, switch(OUTPUT, "Print the table as Markdown.", "--md")] = False,
    session: Session,
) -> None:
    """Time networks in onnxruntime, in turn, and compare each with the first. Writes nothing."""
    if as_md and session.as_json:
        raise InputError("--md --json: two formats", "give one of them")
    found = session.run("bench", BenchSettings(**given))
    page = session.stdout()
    if session.as_json:
        session.json(found)
    elif as_md:
        page.write(benched.markdown(found).rstrip("\n"))
    else:
        page.write(benched.render(found, width=width(), unicode=page.unicode).rstrip("\n"))

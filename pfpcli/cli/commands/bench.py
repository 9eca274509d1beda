"""`pfp bench`: how fast networks are, and which differences are real."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch, takes
from pfpcli.cli.options import INPUT, MACHINE, session
from pfpcli.cli.session import Session, width
from pfpcli.errors import InputError
from pfpcli.report import benched
from pfpcli.settings.bench import RUNTIMES, BenchSettings
from pfpcli.settings.text import parse_numbers


@command(
    "MODEL… [OPTIONS]",
    "pfp bench net.onnx small/model.onnx",
    "pfp bench model.pt2 pfp-runs/model-keep0.40 --threads 1 --batch 1,8",
    "pfp bench net.onnx small.onnx --md >> comment.md",
)
@takes(session=session)
def bench(
    given: dict[str, object],
    *,
    models: Annotated[list[Path], typer.Argument(help="ONNX files, checkpoints and run folders.", show_default=False)],
    input_size: Annotated[
        str | None, flag(INPUT, "Shape of one input, where the files do not say it.", metavar="C,H,W")
    ] = None,
    trust: Annotated[
        bool, switch(INPUT, "Load pickles that name classes outside the allow-list. They can run any code.", "--trust")
    ] = BenchSettings.trust,
    batch: Annotated[str, flag(MACHINE, "Batch sizes, separated by commas.", metavar="N,…")] = "1",
    threads: Annotated[
        int | None, flag(MACHINE, "Threads of the runtime. Default: all cores.", metavar="N")
    ] = BenchSettings.threads,
    runtime: Annotated[str, flag(MACHINE, "What runs the networks.", choices=RUNTIMES)] = BenchSettings.runtime,
    provider: Annotated[
        str, flag(MACHINE, "Provider of onnxruntime, e.g. CUDAExecutionProvider.", metavar="NAME")
    ] = BenchSettings.provider,
    as_md: Annotated[bool, switch(OUTPUT, "Print the table in Markdown.", "--md")] = False,
    session: Session,
) -> None:
    """Time networks in onnxruntime, in turn, and compare each with the first. Writes nothing."""
    if as_md and session.as_json:
        raise InputError("--md --json: two formats", "give one of them")
    settings = BenchSettings(
        models=tuple(models),
        batches=parse_numbers("--batch", batch, int),
        threads=threads,
        runtime=runtime,
        provider=provider,
        input_size=None if input_size is None else parse_numbers("--input-size", input_size, int),
        trust=trust,
    )
    found = session.run("bench", settings)
    page = session.stdout()
    if session.as_json:
        session.json(found)
    elif as_md:
        page.write(benched.markdown(found).rstrip("\n"))
    else:
        page.write(benched.render(found, width=width(), unicode=page.unicode).rstrip("\n"))

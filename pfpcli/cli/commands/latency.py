"""`pfp latency`: where the time of a network goes, in onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch, takes
from pfpcli.cli.input_options import loading
from pfpcli.cli.options import MACHINE, Threads, checkpoint, session
from pfpcli.cli.session import Session, width
from pfpcli.report import latencies
from pfpcli.settings.latency import LatencySettings


def _how(
    threads: Threads = LatencySettings.threads,
    int8: Annotated[
        bool,
        switch(MACHINE, "Time the layers with 8-bit weights and activations, as --int8 --latency plans.", "--int8"),
    ] = LatencySettings.int8,
    pack: Annotated[
        Path | None,
        flag(
            MACHINE,
            "Write a program that times the layers on another machine, which needs numpy and onnxruntime alone: "
            "`python3 FILE table.json` there, `--latency-table table.json` here.",
            metavar="FILE",
        ),
    ] = LatencySettings.pack,
) -> dict[str, Any]:
    return {"threads": threads, "int8": int8, "pack": pack}


@command(
    "MODEL [OPTIONS]",
    "pfp latency model.pt",
    "pfp latency net.onnx --threads 1 --all",
    "pfp latency model.pt --int8",
    "pfp latency model.pt --pack latency.pyz",
)
@takes(checkpoint, loading, _how, session=session)
def latency(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all layers, in their order.", "--all")] = False,
    session: Session,
) -> None:
    """Time the layers of MODEL in onnxruntime: from the table that --latency plans with, and in the network itself."""
    found = session.run("latency", LatencySettings(**given))
    if session.as_json:
        session.json(found)
    else:
        page = session.stdout()
        page.write(latencies.render(found, width=width(), everything=everything, unicode=page.unicode).rstrip("\n"))

"""`pfp verify`: do networks compute the same?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch, takes
from pfpcli.cli.input_options import IMAGES, loading, preprocessing
from pfpcli.cli.options import Seed, Threads, session
from pfpcli.cli.output_options import OUTPUTS, outputs
from pfpcli.cli.session import Session, width
from pfpcli.records.reused_settings import reused_settings
from pfpcli.report import verified
from pfpcli.settings import VerifySettings


def _networks(
    a: Annotated[Path, typer.Argument(metavar="A", help="Checkpoint, exported network, ONNX file or run folder.")],
    b: Annotated[
        Path | None,
        typer.Argument(metavar="B", help="Another one. Default: the files of the run folder A are compared."),
    ] = None,
    original: Annotated[
        Path | None,
        flag(
            OUTPUTS,
            "Checkpoint that the run A pruned: compare it, masked and cut by the plan of the run, as well.",
            metavar="MODEL",
        ),
    ] = None,
) -> dict[str, Any]:
    return {"model": a, "other": b, "original": original}


def _images(
    calib: Annotated[
        Path | None, flag(IMAGES, "Folder of images or arrays to compare on. Default: random inputs.", metavar="DIR")
    ] = None,
    inputs: Annotated[
        int | None,
        flag(
            IMAGES,
            "Number of images or random inputs. Default: at most 256 images, or 16 random inputs.",
            metavar="N",
        ),
    ] = VerifySettings.inputs,
) -> dict[str, Any]:
    return {"calib": calib, "inputs": inputs}


def _tolerances(
    atol: Annotated[
        float, flag(OUTPUTS, "Two numbers of an output may differ by this much.", metavar="X")
    ] = VerifySettings.atol,
    rtol: Annotated[
        float, flag(OUTPUTS, "They may also differ by this share of the largest number of their output.", metavar="X")
    ] = VerifySettings.rtol,
) -> dict[str, Any]:
    return {"atol": atol, "rtol": rtol}


def _machine(threads: Threads = VerifySettings.threads, seed: Seed = VerifySettings.seed) -> dict[str, Any]:
    return {"threads": threads, "seed": seed}


@command(
    "A [B] [OPTIONS]",
    "pfp verify pfp-runs/model-keep0.40",
    "pfp verify model.pt exported.onnx --calib ./imgs",
    "pfp verify pfp-runs/model-keep0.40 --original model.pt",
    "pfp verify old.onnx new.onnx --atol 1e-5 --rtol 0",
)
@takes(_networks, loading, outputs, _images, preprocessing, _tolerances, _machine, session=session)
def verify(
    given: dict[str, Any],
    *,
    everything: Annotated[bool, switch(OUTPUT, "Show all outputs.", "--all")] = False,
    session: Session,
) -> None:
    """Compare two networks, or the files of a run, on the same inputs. Exit code 1 if they differ. Writes nothing."""
    reused = reused_settings({**given, "run": given["model"]}) if given["model"].is_dir() else {}
    found = session.run("verify", VerifySettings(**{**given, **reused}))
    if session.as_json:
        session.json(found)
    else:
        page = session.stdout()
        text = verified.render(found, width=width(), everything=everything, unicode=page.unicode)
        page.write(text.removesuffix("\n"))
    if not found.same:
        raise typer.Exit(1)

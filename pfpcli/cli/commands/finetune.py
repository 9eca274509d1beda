"""`pfp finetune`: train the network of a run with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch, takes
from pfpcli.cli.input_options import IMAGES, Trust
from pfpcli.cli.options import RECOVERY, Classes, Epochs, Minutes, machine, resuming, session
from pfpcli.cli.session import Session
from pfpcli.records.reused_settings import network_of, reused_settings
from pfpcli.settings import FinetuneSettings


def _run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `pfp compress` wrote.")],
    trust: Trust = False,
) -> dict[str, Any]:
    return {**network_of(run), "trust": trust}


def _images(
    data: Annotated[
        Path,
        flag(
            IMAGES,
            "Folder with one sub-folder per class; their sorted names are the order of the outputs.",
            metavar="DIR",
        ),
    ],
    eval: Annotated[
        Path | None,
        flag(IMAGES, "Folder of images to measure accuracy on. Default: held-out images of --data.", metavar="DIR"),
    ] = FinetuneSettings.eval,
    classes: Classes = FinetuneSettings.classes,
    preprocess: Annotated[
        str | None, flag(IMAGES, "Preset or TOML file. Default: the preprocessing of RUN.", metavar="NAME|FILE")
    ] = FinetuneSettings.preprocess,
    no_augment: Annotated[
        bool, switch(IMAGES, "Do not mirror and shift the training images at random.", "--no-augment")
    ] = False,
) -> dict[str, Any]:
    return {"calib": data, "eval": eval, "classes": classes, "preprocess": preprocess, "augment": not no_augment}


def _training(
    epochs: Epochs = FinetuneSettings.epochs,
    minutes: Minutes = FinetuneSettings.minutes,
    lr: Annotated[float, flag(RECOVERY, "Highest learning rate of the schedule.", metavar="X")] = FinetuneSettings.lr,
    teacher: Annotated[
        Path | None, flag(RECOVERY, "Checkpoint that RUN pruned: learn from its outputs as well.", metavar="MODEL")
    ] = FinetuneSettings.teacher,
    distill_weight: Annotated[
        float | None, flag(RECOVERY, "Share of the teacher in the loss, 0 to 1. Default: 0.5.", metavar="W")
    ] = FinetuneSettings.distill_weight,
) -> dict[str, Any]:
    return {"epochs": epochs, "minutes": minutes, "lr": lr, "teacher": teacher, "distill_weight": distill_weight}


@command(
    "RUN --data DIR [OPTIONS]",
    "pfp finetune pfp-runs/model-keep0.40 --data ./train",
    "pfp finetune pfp-runs/model-keep0.40 --data ./train --eval ./test --minutes 10",
    "pfp finetune pfp-runs/model-keep0.40 --data ./train --teacher model.pt",
    "pfp finetune --resume pfp-runs/model-keep0.40-finetuned",
)
@takes(_run, _images, _training, machine, resuming, session=session)
def finetune(
    given: dict[str, Any],
    *,
    out: Annotated[
        Path | None, flag(OUTPUT, "Run folder to write. Default: RUN-finetuned.", metavar="DIR")
    ] = FinetuneSettings.out,
    session: Session,
) -> None:
    """Train the network of RUN with labels and write a new run folder. Weights change only if accuracy rises."""
    session.finish(session.run("finetune", FinetuneSettings(**{**given, **reused_settings(given)}, out=out)))

"""`pfp finetune`: the network of a run, trained with labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.app import command
from pfpcli.cli.flags import OUTPUT, flag, switch
from pfpcli.cli.options import INPUT, RECOVERY, Epochs, Minutes, machine, takes, talking
from pfpcli.cli.session import Talk
from pfpcli.records.reused_settings import network_of, remembered
from pfpcli.settings import Finetune

IMAGES = "Images"


def _run(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder that `pfp compress` wrote.")],
    trust: Annotated[bool, switch(INPUT, "Load pickles that may run any code.", "--trust")] = False,
) -> dict[str, Any]:
    return {**network_of(run), "trust": trust}


def _images(
    data: Annotated[Path, flag(IMAGES, "Class folders; their sorted names are the outputs.", metavar="DIR")],
    eval: Annotated[
        Path | None, flag(IMAGES, "To report accuracy on; otherwise some of --data are held out.", metavar="DIR")
    ] = Finetune.eval,
    preprocess: Annotated[
        str | None, flag(IMAGES, "Preset or TOML file; otherwise what it was in the run.", metavar="NAME|FILE")
    ] = Finetune.preprocess,
    no_augment: Annotated[
        bool, switch(IMAGES, "Train on the images as they are, never mirrored or shifted.", "--no-augment")
    ] = False,
) -> dict[str, Any]:
    return {"calib": data, "eval": eval, "preprocess": preprocess, "augment": not no_augment}


def _training(
    epochs: Epochs = Finetune.epochs,
    minutes: Minutes = Finetune.minutes,
    lr: Annotated[float, flag(RECOVERY, "The highest learning rate.", metavar="X")] = Finetune.lr,
    teacher: Annotated[
        Path | None, flag(RECOVERY, "The model RUN was made of: learn from its outputs too.", metavar="MODEL")
    ] = Finetune.teacher,
    distill_weight: Annotated[
        float | None, flag(RECOVERY, "Share of the teacher in the loss; otherwise 0.5.", metavar="W")
    ] = Finetune.distill_weight,
) -> dict[str, Any]:
    return {"epochs": epochs, "minutes": minutes, "lr": lr, "teacher": teacher, "distill_weight": distill_weight}


@command(
    "RUN --data DIR [OPTIONS]",
    "pfp finetune pfp-runs/model-keep0.40 --data ./train",
    "pfp finetune pfp-runs/model-keep0.40 --data ./train --eval ./test --minutes 10",
    "pfp finetune pfp-runs/model-keep0.40 --data ./train --teacher model.pt",
)
@takes(_run, _images, _training, machine, talk=talking)
def finetune(
    given: dict[str, Any],
    *,
    out: Annotated[Path | None, flag(OUTPUT, "Run folder; otherwise RUN-finetuned.", metavar="DIR")] = Finetune.out,
    talk: Talk,
) -> None:
    """Train the network of RUN with labels and write it to a run folder; what does not get better stays as it is."""
    talk.finish(*talk.run("finetune", Finetune(**{**given, **remembered(given)}, out=out)))

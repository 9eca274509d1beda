"""Options that several commands share. Each option is written once, so a flag means the same in every command.

Each function is a group of options. It receives their values and returns the settings that they set.
`flags.takes` gives groups of options to a command.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.flags import COLORS, OUTPUT, Color, Json, Verbose, flag, setting, switch
from pfpcli.cli.input_options import (
    IMAGES,
    Arch,
    ArchKwargs,
    Convert,
    InputSize,
    Mean,
    Preprocess,
    Resize,
    Std,
    Trust,
    loading,
    preprocessing,
)
from pfpcli.cli.resume import Line
from pfpcli.cli.session import Session
from pfpcli.errors import InputError
from pfpcli.planning.allocations import ALLOCATIONS, BEST
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings import CompressSettings
from pfpcli.settings.checks import EPOCHS
from pfpcli.settings.text import parse_keep, parse_names

BUDGET, SCORING = "Budget", "Scoring"
CUT, RECOVERY, MACHINE = "What may be cut", "Recovery and training", "Machine"

_CRITERIA = "; ".join(f"{name} ({found.summary})" for name, found in CRITERIA.items())
_ALLOCATIONS = "; ".join(
    [f"{BEST} (the best of most of these, and of plans between them, on held-out images)"]
    + [f"{name} ({found.summary})" for name, found in ALLOCATIONS.items()]
)
_RECOVERIES = "; ".join(f"{name} ({each.summary})" for name, each in RECOVERIES.items())
Keep = Annotated[
    str | None,
    flag(BUDGET, "Fraction to keep, e.g. 0.4 or 40%: above 0, at most 1. Default: 0.5.", metavar="R"),
]
Allocate = Annotated[
    str, setting(BUDGET, "allocate", f"How many channels each group keeps: {_ALLOCATIONS}.", metavar="NAME")
]
Classes = Annotated[
    Path | None,
    flag(
        IMAGES,
        "File with the names of the class folders in the order of the outputs, one in each line. Default: sorted.",
        metavar="FILE",
    ),
]
Epochs = Annotated[
    int | None,
    flag(
        RECOVERY,
        f"Train for at most N passes over the images. Default: {EPOCHS}, or no limit with --minutes.",
        metavar="N",
    ),
]
Minutes = Annotated[float | None, flag(RECOVERY, "Train for at most M minutes.", metavar="M")]
Delta = Annotated[
    float,
    flag(SCORING, "Allowed probability that an error bound fails. A smaller one asks for more images.", metavar="P"),
]
Threads = Annotated[int | None, flag(MACHINE, "Number of CPU threads. Default: all cores.", metavar="N")]
Seed = Annotated[int, flag(MACHINE, "Seed of all random choices.", metavar="N")]
Out = Annotated[
    Path | None, flag(OUTPUT, "Run folder to write. Default: one in pfp-runs, named after the model.", metavar="DIR")
]


def checkpoint(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Checkpoint: nn.Module, state dict, TorchScript, exported program (.pt2) or ONNX."
        ),
    ],
) -> dict[str, Any]:
    """The checkpoint."""
    return {"model": model}


def network(
    arch: Arch = None,
    arch_kwargs: ArchKwargs = None,
    input_size: InputSize = None,
    trust: Trust = False,
    freeze: Annotated[
        list[str] | None,
        flag(
            CUT,
            "Keep every channel of layers with such a name, e.g. 'head*'; 'head*:out' names what they make, 'head*:in' "
            "what they read. Repeatable.",
            metavar="PATTERN",
        ),
    ] = None,
    where: Annotated[
        str, setting(CUT, "where", "Where channels may be pruned: everywhere, or only inside of residual blocks.")
    ] = CompressSettings.where,
    exact_only: Annotated[
        bool, switch(CUT, "Do not prune channels that a norm or another statistic is computed across.", "--exact-only")
    ] = False,
    strict: Annotated[bool, switch(CUT, "Fail if the network has an op without a rule.", "--strict")] = False,
) -> dict[str, Any]:
    """How to load the checkpoint, and which of its channels may be pruned."""
    return {
        **loading(arch, arch_kwargs, input_size, trust),
        "freeze": tuple(freeze or ()),
        "where": where,
        "exact_only": exact_only,
        "strict": strict,
    }


def images(
    calib: Annotated[
        Path, flag(IMAGES, "Folder of images or .npy/.npz arrays. Class folders are labels.", metavar="DIR")
    ],
    classes: Classes = CompressSettings.classes,
    labels: Annotated[
        Path | None,
        flag(
            IMAGES,
            "CSV with rows `file,label`, or folder with a mask or a target image for each image, of the same stem.",
            metavar="FILE|DIR",
        ),
    ] = CompressSettings.labels,
    preprocess: Preprocess = CompressSettings.preprocess,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = CompressSettings.resize,
    convert: Convert = CompressSettings.convert,
) -> dict[str, Any]:
    """The calibration images and their preprocessing."""
    return {
        "calib": calib,
        "classes": classes,
        "labels": labels,
        **preprocessing(preprocess, mean, std, resize, convert),
    }


def judging(
    eval: Annotated[
        Path | None,
        flag(IMAGES, "Folder of images to measure quality on. Default: held-out images of --calib.", metavar="DIR"),
    ] = CompressSettings.eval,
) -> dict[str, Any]:
    """The images that measure quality."""
    return {"eval": eval}


def budget(
    keep: Keep = None,
    keep_of: Annotated[
        str,
        setting(
            BUDGET, "keep_of", "What --keep counts: parameters, multiply-adds, the size of model.onnx, or its latency."
        ),
    ] = CompressSettings.keep_of,
    epsilon: Annotated[
        float | None,
        flag(
            BUDGET,
            "Error budget instead of --keep: the relative error bound of every layer stays at most E.",
            metavar="E",
        ),
    ] = CompressSettings.epsilon,
    allocate: Allocate = CompressSettings.allocate,
    steps: Annotated[
        int, flag(BUDGET, "Prune in N steps; recover and score the network again between them.", metavar="N")
    ] = CompressSettings.steps,
    multiple_of: Annotated[
        int | None,
        flag(
            BUDGET,
            "Keep multiples of N channels. By default 8 for groups of 64 channels or more and 4 from 16 on, less where "
            "the budget could not be met; in small networks 4, or 1 where that loses more than it gains. 1 leaves "
            "widths as they fall.",
            metavar="N",
        ),
    ] = CompressSettings.multiple_of,
    min_channels: Annotated[
        int, flag(BUDGET, "Keep at least N channels of every group.", metavar="N")
    ] = CompressSettings.min_channels,
) -> dict[str, Any]:
    """How much to keep, and how it is shared among the groups."""
    if keep is not None and epsilon is not None:
        raise InputError(f"--keep {keep} --epsilon {epsilon:g}: two budgets", "give one of them")
    return {
        "keep": None if keep is None else parse_keep(keep),
        "keep_of": keep_of,
        "epsilon": epsilon,
        "allocate": allocate,
        "steps": steps,
        "multiple_of": multiple_of,
        "min_channels": min_channels,
    }


def replaying(
    plan: Annotated[
        Path | None,
        flag(BUDGET, "Cut as this plan.json says, of a run or of `pfp plan`, and score nothing.", metavar="FILE"),
    ] = CompressSettings.plan,
) -> dict[str, Any]:
    """A plan that is made already."""
    return {"plan": plan}


def criterion(
    criterion: Annotated[
        str, setting(SCORING, "criterion", f"How to score channels: {_CRITERIA}.", metavar="NAME")
    ] = CompressSettings.criterion,
) -> dict[str, Any]:
    """The criterion."""
    return {"criterion": criterion}


def samples(
    samples: Annotated[
        int | None,
        flag(
            SCORING,
            "Number of images to score on. Default: what the criterion asks for; at most half of --calib if no --eval.",
            metavar="N",
        ),
    ] = CompressSettings.samples,
) -> dict[str, Any]:
    """The number of scoring images."""
    return {"samples": samples}


def scoring(
    reduce: Annotated[
        str,
        setting(
            SCORING,
            "reduce",
            "Combine the kernel positions of a channel by sum (bounds need it) or max, as torchprune does.",
        ),
    ] = CompressSettings.reduce,
    delta: Delta = CompressSettings.delta,
    no_cache: Annotated[
        bool, switch(SCORING, "Neither read scores from the cache nor write them to it.", "--no-cache")
    ] = False,
) -> dict[str, Any]:
    """Settings of scoring that do not depend on the criterion."""
    return {
        "reduce": reduce,
        "delta": delta,
        "cache": not no_cache,
    }


def recovery(
    recover: Annotated[
        str, flag(RECOVERY, f"none, or recovery methods separated by commas: {_RECOVERIES}.", metavar="NAMES")
    ] = ",".join(CompressSettings.recover),
    epochs: Epochs = CompressSettings.epochs,
    minutes: Minutes = CompressSettings.minutes,
) -> dict[str, Any]:
    """What happens after the cut."""
    return {
        "recover": parse_names(recover),
        "epochs": epochs,
        "minutes": minutes,
    }


def machine(
    device: Annotated[
        str, setting(MACHINE, "device", "Device to compute on. auto: the first of cuda, mps, cpu that exists.")
    ] = CompressSettings.device,
    threads: Threads = CompressSettings.threads,
    seed: Seed = CompressSettings.seed,
) -> dict[str, Any]:
    """The device, its threads, and the seed."""
    return {"device": device, "threads": threads, "seed": seed}


def resuming(
    resume: Annotated[
        Path | None,
        flag(
            OUTPUT,
            "Go on with a run that was interrupted, with the settings that it was started with; nothing else needs to "
            "be typed. RUN is the folder that it was to become.",
            metavar="RUN",
        ),
    ] = None,
) -> dict[str, Any]:
    """A run that goes on; `resume` has taken over its options before they were parsed."""
    return {}


def session(
    ctx: typer.Context,
    as_json: Json = False,
    quiet: Annotated[bool, switch(OUTPUT, "Do not print the steps or the summary of a run.", "-q", "--quiet")] = False,
    show_settings: Annotated[
        bool, switch(OUTPUT, "Print every setting with its origin and stop.", "--show-settings")
    ] = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> Session:
    """How the command shows what it does."""
    if as_json and show_settings:
        raise InputError("--json --show-settings: two outputs", "give one of them")
    return Session(as_json, quiet, verbose, color, show_settings, Line.of(ctx))

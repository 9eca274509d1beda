"""Options that several commands have: written once, so that the same flag means the same everywhere.

Each function here is a group of options; it returns the settings they make. `takes` gives groups to a command.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer

from pfpcli.cli.flags import COLORS, OUTPUT, Color, Json, Verbose, flag, setting, switch
from pfpcli.cli.session import Talk
from pfpcli.errors import InputError
from pfpcli.planning.allocations import ALLOCATIONS
from pfpcli.recovery import RECOVERIES
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings import EPOCHS, Settings, Sparsity, parse_keep, parse_numbers

INPUT, CALIBRATION, BUDGET, SCORING = "Input", "Calibration images", "Budget", "Scoring"
CUT, RECOVERY, MACHINE = "What may be cut", "Recovery and training", "Machine"

_CRITERIA = "; ".join(f"{name} ({found.summary})" for name, found in CRITERIA.items())
_ALLOCATIONS = "; ".join(f"{name} ({summary})" for name, summary in ALLOCATIONS.items())
_RECOVERIES = "; ".join(f"{name} ({summary})" for name, summary in RECOVERIES.items())
Keep = Annotated[
    str | None,
    flag(BUDGET, "Fraction to keep, above 0 and at most 1, or a percentage; otherwise 0.5.", metavar="R"),
]
Epochs = Annotated[
    int | None,
    flag(RECOVERY, f"Train until all images were seen N times; {EPOCHS} without --minutes.", metavar="N"),
]
Minutes = Annotated[float | None, flag(RECOVERY, "Train for so long.", metavar="M")]
Delta = Annotated[float, flag(SCORING, "Probability with which an error bound may fail.", metavar="P")]
Out = Annotated[
    Path | None, flag(OUTPUT, "Run folder; otherwise one in pfp-runs named after the model.", metavar="DIR")
]

_Group = Callable[..., Any]


def takes(*groups: _Group, **named: _Group) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of groups.

    Args:
        groups: what they return, merged, is the command's first argument.
        named: what each returns is the argument of that name.
    """

    def give(command: Callable[..., None]) -> Callable[..., None]:
        def called(**values: Any) -> None:
            def made(group: _Group) -> Any:
                return group(**{name: values.pop(name) for name in signature(group).parameters})

            settings = {name: value for group in groups for name, value in made(group).items()}
            command(settings, **{name: made(group) for name, group in named.items()}, **values)

        own = list(signature(command, eval_str=True).parameters.values())[1:]
        parameters = [
            *(parameter for group in groups for parameter in _parameters(group)),
            *(parameter for parameter in own if parameter.name not in named),
            *(parameter for group in named.values() for parameter in _parameters(group)),
        ]
        called.__name__, called.__doc__ = command.__name__, command.__doc__
        called.__signature__ = Signature([p.replace(kind=Parameter.KEYWORD_ONLY) for p in parameters])  # type: ignore
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return called

    return give


def _parameters(group: _Group) -> list[Parameter]:
    return list(signature(group, eval_str=True).parameters.values())


def checkpoint(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A module, a state dict, TorchScript, an exported program or ONNX.")
    ],
) -> dict[str, Any]:
    """The file to load."""
    return {"model": model}


def network(
    arch: Annotated[
        str | None,
        flag(INPUT, "What builds the network of a state dict, e.g. torchvision:resnet18.", metavar="MODULE:FACTORY"),
    ] = None,
    arch_kwargs: Annotated[str | None, flag(INPUT, "Keyword arguments for --arch, an object.", metavar="JSON")] = None,
    input_size: Annotated[str | None, flag(INPUT, "Needed where the file does not say.", metavar="C,H,W")] = None,
    trust: Annotated[bool, switch(INPUT, "Load pickles that may run any code.", "--trust")] = False,
    freeze: Annotated[
        list[str] | None, flag(CUT, "Drop nothing of a layer, e.g. 'head*'; may be repeated.", metavar="PATTERN")
    ] = None,
    exact_only: Annotated[
        bool, switch(CUT, "Leave channels alone that a norm or another statistic is taken across.", "--exact-only")
    ] = False,
    strict: Annotated[bool, switch(CUT, "Refuse networks with ops that have no rule.", "--strict")] = False,
) -> dict[str, Any]:
    """What the file holds, and what of it may be cut."""
    return {
        "arch": arch,
        "arch_kwargs": None if arch_kwargs is None else _json_object("--arch-kwargs", arch_kwargs),
        "input_size": None if input_size is None else parse_numbers("--input-size", input_size, int),
        "trust": trust,
        "freeze": tuple(freeze or ()),
        "exact_only": exact_only,
        "strict": strict,
    }


def images(
    calib: Annotated[Path, flag(CALIBRATION, "Images, .npy or .npz; class folders are labels.", metavar="DIR")],
    preprocess: Annotated[
        str | None,
        flag(
            CALIBRATION,
            "imagenet, unit, raw255, none or a TOML file; otherwise imagenet for images, none for arrays.",
            metavar="NAME|FILE",
        ),
    ] = Settings.preprocess,
    mean: Annotated[str | None, flag(CALIBRATION, "Per channel, over the preset's.", metavar="X,Y,Z")] = None,
    std: Annotated[str | None, flag(CALIBRATION, "Per channel, over the preset's.", metavar="X,Y,Z")] = None,
    resize: Annotated[
        str | None,
        flag(
            CALIBRATION,
            "Short side before the centre crop, otherwise that of the input; or a size to stretch to.",
            metavar="S|HxW",
        ),
    ] = Settings.resize,
    convert: Annotated[
        bool, switch(CALIBRATION, "Convert images with other channels than the model's.", "--convert")
    ] = Settings.convert,
) -> dict[str, Any]:
    """Calibration images and what is done to them."""
    return {
        "calib": calib,
        "preprocess": preprocess,
        "mean": None if mean is None else parse_numbers("--mean", mean, float),
        "std": None if std is None else parse_numbers("--std", std, float),
        "resize": resize,
        "convert": convert,
    }


def judging(
    eval: Annotated[
        Path | None,
        flag(CALIBRATION, "Images to report quality on; otherwise some of --calib are held out.", metavar="DIR"),
    ] = Settings.eval,
) -> dict[str, Any]:
    """Which images judge."""
    return {"eval": eval}


def budget(
    keep: Keep = None,
    keep_of: Annotated[str, setting(BUDGET, "keep_of", "What --keep measures.")] = Settings.keep_of,
    epsilon: Annotated[
        float | None,
        flag(BUDGET, "Instead of --keep: as little as leaves every layer within this relative error.", metavar="E"),
    ] = Settings.epsilon,
    allocate: Annotated[
        str, setting(BUDGET, "allocate", f"How many channels each group keeps: {_ALLOCATIONS}.", metavar="NAME")
    ] = Settings.allocate,
    steps: Annotated[
        int, flag(BUDGET, "Cut in N steps; recover and score what is left between them.", metavar="N")
    ] = Settings.steps,
    multiple_of: Annotated[
        int, flag(BUDGET, "Round kept channels up to a multiple of N.", metavar="N")
    ] = Settings.multiple_of,
    min_channels: Annotated[
        int, flag(BUDGET, "Keep at least N channels of a group.", metavar="N")
    ] = Settings.min_channels,
) -> dict[str, Any]:
    """How much to keep."""
    if keep is not None and epsilon is not None:
        raise InputError(f"--keep {keep} --epsilon {epsilon:g}: two budgets", "give one of them")
    return {
        "keep": Settings.keep if keep is None else parse_keep(keep),
        "keep_of": keep_of,
        "epsilon": epsilon,
        "allocate": allocate,
        "steps": steps,
        "multiple_of": multiple_of,
        "min_channels": min_channels,
    }


def criterion(
    criterion: Annotated[
        str, setting(SCORING, "criterion", f"How channels are scored: {_CRITERIA}.", metavar="NAME")
    ] = Settings.criterion,
) -> dict[str, Any]:
    """How channels are scored."""
    return {"criterion": criterion}


def samples(
    samples: Annotated[
        int | None,
        flag(SCORING, "Images to score on; otherwise as many as the error bound asks for.", metavar="N"),
    ] = Settings.samples,
) -> dict[str, Any]:
    """How many images score."""
    return {"samples": samples}


def scoring(
    reduce: Annotated[str, setting(SCORING, "reduce", "Sensitivity over the positions of a kernel.")] = Settings.reduce,
    delta: Delta = Settings.delta,
    no_cache: Annotated[bool, switch(SCORING, "Score again, whatever was scored before.", "--no-cache")] = False,
) -> dict[str, Any]:
    """What scoring goes by, whatever the criterion."""
    return {
        "reduce": reduce,
        "delta": delta,
        "cache": not no_cache,
    }


def recovery(
    recover: Annotated[
        str, flag(RECOVERY, f"none, or some of these with commas between: {_RECOVERIES}.", metavar="NAMES")
    ] = ",".join(Settings.recover),
    epochs: Epochs = Settings.epochs,
    minutes: Minutes = Settings.minutes,
) -> dict[str, Any]:
    """What is done after a cut."""
    return {
        "recover": () if recover == "none" else tuple(recover.split(",")),
        "epochs": epochs,
        "minutes": minutes,
    }


def sparsity(
    keep: Keep = None,
    criterion: Annotated[
        str, setting(SCORING, "criterion", "How weights are chosen.", of=Sparsity)
    ] = Sparsity.criterion,
    delta: Delta = Sparsity.delta,
    cut_dead: Annotated[
        bool, switch(CUT, "Cut the channels off that nothing reads any more.", "--cut-dead")
    ] = Sparsity.cut_dead,
) -> dict[str, Any]:
    """Which single weights go, and how many."""
    return {
        "keep": Sparsity.keep if keep is None else parse_keep(keep),
        "criterion": criterion,
        "delta": delta,
        "cut_dead": cut_dead,
    }


def machine(
    device: Annotated[str, setting(MACHINE, "device", "Where to compute.")] = Settings.device,
    threads: Annotated[
        int | None, flag(MACHINE, "CPU threads; otherwise as many as cores.", metavar="N")
    ] = Settings.threads,
    seed: Annotated[int, flag(MACHINE, "Of every random choice.", metavar="N")] = Settings.seed,
) -> dict[str, Any]:
    """Where it is computed."""
    return {"device": device, "threads": threads, "seed": seed}


def talking(
    as_json: Json = False,
    quiet: Annotated[bool, switch(OUTPUT, "Leave out the steps and what is not the result.", "-q", "--quiet")] = False,
    verbose: Verbose = False,
    color: Color = COLORS[0],
) -> Talk:
    """How the command talks."""
    return Talk(as_json, quiet, verbose, color)


def _json_object(flag: str, text: str) -> dict[str, Any]:
    """A JSON object given as text.

    Raises:
        InputError: it is none.
    """
    hint = f"""for example `{flag} '{{"num_classes": 10}}'`"""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{flag}: not JSON ({error})", hint) from error
    if not isinstance(value, dict):
        raise InputError(f"{flag}: expected a JSON object, found {text}", hint)
    return value

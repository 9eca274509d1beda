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

from pfpcli.commands.flags import COLORS, OUTPUT, Color, Json, Verbose, flag, setting, switch
from pfpcli.commands.talk import Talk
from pfpcli.criteria import CRITERIA
from pfpcli.errors import InputError
from pfpcli.settings import Settings, parse_keep, parse_numbers

INPUT, CALIBRATION, BUDGET, SCORING = "Input", "Calibration images", "Budget", "Scoring"
CUT, MACHINE = "What may be cut", "Machine"

#: What each criterion measures.
_CRITERIA = [f"{name}: {criterion.summary}" for name, criterion in CRITERIA.items()]

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


def network(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Checkpoint: a module, state dict, TorchScript or exported program.")
    ],
    arch: Annotated[
        str | None,
        flag(INPUT, "What builds the network of a state dict, e.g. torchvision:resnet18.", metavar="MODULE:FACTORY"),
    ] = None,
    arch_kwargs: Annotated[str | None, flag(INPUT, "Keyword arguments for --arch, an object.", metavar="JSON")] = None,
    input_size: Annotated[str | None, flag(INPUT, "Needed where the file does not say.", metavar="C,H,W")] = None,
    trust: Annotated[bool, switch(INPUT, "Load pickles that may run any code.", "--trust")] = False,
    freeze: Annotated[
        list[str] | None, flag(CUT, "Leave layers alone, e.g. 'head*'; may be repeated.", metavar="PATTERN")
    ] = None,
    exact_only: Annotated[
        bool, switch(CUT, "Leave channels alone that a norm or another statistic is taken across.", "--exact-only")
    ] = False,
    strict: Annotated[bool, switch(CUT, "Refuse networks with ops that have no rule.", "--strict")] = False,
) -> dict[str, Any]:
    """Which network, and what of it may be cut."""
    return {
        "model": model,
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
    eval: Annotated[
        Path | None,
        flag(CALIBRATION, "Images to report quality on; otherwise some of --calib are held out.", metavar="DIR"),
    ] = Settings.eval,
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
    samples: Annotated[
        int | None,
        flag(SCORING, "Images to score on; otherwise as many as the error bound asks for.", metavar="N"),
    ] = Settings.samples,
) -> dict[str, Any]:
    """Calibration images and what is done to them."""
    return {
        "calib": calib,
        "eval": eval,
        "preprocess": preprocess,
        "mean": None if mean is None else parse_numbers("--mean", mean, float),
        "std": None if std is None else parse_numbers("--std", std, float),
        "resize": resize,
        "convert": convert,
        "samples": samples,
    }


def budget(
    keep: Annotated[
        str | None,
        flag(BUDGET, "Fraction to keep, above 0 and at most 1, or a percentage; otherwise 0.5.", metavar="R"),
    ] = None,
    keep_of: Annotated[str, setting(BUDGET, "keep_of", "What --keep measures.")] = Settings.keep_of,
    epsilon: Annotated[
        float | None,
        flag(BUDGET, "Instead of --keep: as little as leaves every layer within this relative error.", metavar="E"),
    ] = Settings.epsilon,
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
        "multiple_of": multiple_of,
        "min_channels": min_channels,
    }


def scoring(
    criterion: Annotated[
        str, setting(SCORING, "criterion", f"How channels are scored. {'; '.join(_CRITERIA)}.")
    ] = Settings.criterion,
    reduce: Annotated[str, setting(SCORING, "reduce", "Sensitivity over the positions of a kernel.")] = Settings.reduce,
    delta: Annotated[
        float, flag(SCORING, "Probability with which an error bound may fail.", metavar="P")
    ] = Settings.delta,
) -> dict[str, Any]:
    """How channels are scored."""
    return {"criterion": criterion, "reduce": reduce, "delta": delta}


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

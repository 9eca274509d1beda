"""Options about files and images: how they are loaded and preprocessed. As `options`, each option is written once."""

from __future__ import annotations

import json
from typing import Annotated, Any

from pfpcli.cli.flags import flag, switch
from pfpcli.errors import InputError
from pfpcli.settings import CompressSettings
from pfpcli.settings.text import parse_numbers

INPUT, IMAGES = "Input", "Images"

Arch = Annotated[
    str | None,
    flag(
        INPUT, "Function that builds the network of a state dict, e.g. torchvision:resnet18.", metavar="MODULE:FACTORY"
    ),
]
ArchKwargs = Annotated[str | None, flag(INPUT, "Keyword arguments of the --arch function.", metavar="JSON")]
InputSize = Annotated[
    str | None,
    flag(INPUT, "Shape of one input, without the batch. Needed if the file does not contain it.", metavar="C,H,W"),
]
Trust = Annotated[bool, switch(INPUT, "Load pickles that can run any code. Only for files you trust.", "--trust")]
Preprocess = Annotated[
    str | None,
    flag(
        IMAGES,
        "imagenet, unit, raw255, none or a TOML file. Default: imagenet for images, none for arrays.",
        metavar="NAME|FILE",
    ),
]
Mean = Annotated[str | None, flag(IMAGES, "Mean per channel, instead of the preset's.", metavar="X,Y,Z")]
Std = Annotated[str | None, flag(IMAGES, "Standard deviation per channel, instead of the preset's.", metavar="X,Y,Z")]
Resize = Annotated[
    str | None,
    flag(
        IMAGES,
        "S: scale the short side to S, then crop the centre. HxW: stretch to that size. "
        "Default: S is the short side of the input.",
        metavar="S|HxW",
    ),
]
Convert = Annotated[
    bool,
    switch(
        IMAGES,
        "Convert images to the number of channels the model takes: grey to RGB, RGB to grey, no alpha.",
        "--convert",
    ),
]


def loading(
    arch: Arch = None, arch_kwargs: ArchKwargs = None, input_size: InputSize = None, trust: Trust = False
) -> dict[str, Any]:
    """How to load a file."""
    return {
        "arch": arch,
        "arch_kwargs": None if arch_kwargs is None else _json_object("--arch-kwargs", arch_kwargs),
        "input_size": None if input_size is None else parse_numbers("--input-size", input_size, int),
        "trust": trust,
    }


def preprocessing(
    preprocess: Preprocess = CompressSettings.preprocess,
    mean: Mean = None,
    std: Std = None,
    resize: Resize = CompressSettings.resize,
    convert: Convert = CompressSettings.convert,
) -> dict[str, Any]:
    """The preprocessing of images."""
    return {
        "preprocess": preprocess,
        "mean": None if mean is None else parse_numbers("--mean", mean, float),
        "std": None if std is None else parse_numbers("--std", std, float),
        "resize": resize,
        "convert": convert,
    }


def _json_object(flag: str, text: str) -> dict[str, Any]:
    """Parse a JSON object.

    Raises:
        InputError: the text is not a JSON object.
    """
    hint = f"""for example `{flag} '{{"num_classes": 10}}'`"""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InputError(f"{flag}: not JSON ({error})", hint) from error
    if not isinstance(value, dict):
        raise InputError(f"{flag}: expected a JSON object, found {text}", hint)
    return value

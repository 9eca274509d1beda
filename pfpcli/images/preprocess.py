"""Preprocess: what is done to the values of every sample. Presets, flags and TOML files choose it.

    out = (scale · stored - mean) / std        per channel, after resize and centre crop

The resize is torchvision's: to a short side S, or stretched to H×W. The centre is then cropped to the model's input.
This module reads no samples: `input_fit` checks a folder against a `Preprocess`, and `decode` applies it.
"""

from __future__ import annotations

import difflib
import math
import re
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pfpcli.errors import CalibrationError
from pfpcli.images.corruptions import Corruption


@dataclass(frozen=True)
class Preprocess:
    """The preprocessing of every sample, in this order: channels, resize, crop, scale, `(x - mean) / std`.

    Attributes:
        name: "imagenet", "unit", "raw255", "none" or the name of a TOML file.
        scale: the factor of the stored values, e.g. 1/255.
        mean, std: one number per channel, in units of the scaled values; empty means 0 and 1.
        resize: "S" (short side, then centre crop) or "HxW" (stretch, then centre crop), in pixels. None is the smallest
            size that covers the model's input; for a square input this is its side.
        arrays: whether the samples are arrays, which are never resized.
        corruption: damage to the pixels after the crop; None for none.
    """

    name: str
    scale: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: str | None = None
    arrays: bool = False
    corruption: Corruption | None = None

    @property
    def target(self) -> tuple[int, ...]:
        """`resize` in pixels: (S,), (H, W), or () for None.

        Raises:
            CalibrationError: it is neither S nor HxW.
        """
        if self.resize is None:
            return ()
        match = re.fullmatch(r"\s*([1-9]\d*)(?:\s*[xX×]\s*([1-9]\d*))?\s*", self.resize)
        if match is None:
            raise CalibrationError(
                f"--resize {self.resize}: expected S (short side) or HxW (height and width), in pixels",
                "for example `--resize 256` or `--resize 256x320`",
            )
        return tuple(int(part) for part in match.groups() if part is not None)

    def resized(self, stored: tuple[int, ...], crop: tuple[int, ...]) -> tuple[int, int]:
        """The height and width of an image after the resize, rounded as torchvision's `Resize` does.

        Args:
            stored: height and width of the image, in pixels.
            crop: height and width of the model's input.
        """
        height, width = stored
        target = self.target or (min(crop),)
        if len(target) == 2:
            return target[0], target[1]
        short = min(height, width)
        new = (target[0] * height // short, target[0] * width // short)
        if self.resize is None and new[0] < crop[0]:
            return crop[0], crop[0] * width // height
        if self.resize is None and new[1] < crop[1]:
            return crop[1] * height // width, crop[1]
        return new

    def normalised(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """`(scale · values - mean) / std` for each channel, the first axis; float32 of the same shape.

        The scaling is in double precision. A byte / 255 is then the nearest float32, as in torchvision's `ToTensor`.
        """
        with np.errstate(over="ignore"):  # an overflow is found as a value that is not finite
            scaled = np.multiply(values, self.scale, dtype=np.float64) if self.scale != 1 else values
            out = np.array(scaled, dtype=np.float32, order="C")
        per_channel = (-1, *(1,) * (out.ndim - 1))
        if self.mean:
            out -= np.array(self.mean, dtype=np.float32).reshape(per_channel)
        if self.std:
            out /= np.array(self.std, dtype=np.float32).reshape(per_channel)
        return out

    def restored(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Values as they were stored, from those of `normalised`: float64 of the same shape."""
        per_channel = (-1, *(1,) * (values.ndim - 1))
        out = values.astype(np.float64)
        if self.std:
            out *= np.array(self.std).reshape(per_channel)
        if self.mean:
            out += np.array(self.mean).reshape(per_channel)
        return out / self.scale

    def describe(self, size: tuple[int, ...] | None = None) -> str:
        """One line for the terminal; size: the shape of the model's input without the batch, for the numbers of pixels.

        `imagenet: /255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, short side 32, centre crop 32×32`
        """
        if self.scale == 1:
            parts = ["values as stored" if self.arrays else "0..255 as stored"]
        else:
            parts = ["/255" if self.scale == 1 / 255 else f"×{self.scale:g}"]
        for what, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers:
                parts.append(" ".join([what, *(f"{number:g}" for number in numbers)]))
        if not self.arrays:
            parts += self._describe_resize(size[1:] if size is not None and len(size) == 3 else None)
        return f"{self.name}: {', '.join(parts)}"

    def _describe_resize(self, crop: tuple[int, ...] | None) -> list[str]:
        target = self.target
        if len(target) == 2:
            first = f"stretched to {shape_text(target)}"
        elif target:
            first = f"short side {target[0]}"
        elif crop is None:
            return ["short side of the input, centre crop"]
        else:
            first = f"short side {crop[0]}" if crop[0] == crop[1] else f"scaled to cover {shape_text(crop)}"
        return [first] if target == crop else [first, f"centre crop {shape_text(crop)}" if crop else "centre crop"]

    def recorded(self) -> dict[str, Any]:
        """The preprocessing as plain values for the record."""
        return {
            "name": self.name,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize,
        }


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess("imagenet", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": Preprocess("unit", 1 / 255),
    "raw255": Preprocess("raw255", 1.0),
    "none": Preprocess("none", 1.0),
}


class PreprocessSettings(Protocol):
    """The settings of the preprocessing; None for a setting that is not given."""

    @property
    def preprocess(self) -> str | None:
        """The name of a preset, or the path of a TOML file."""

    @property
    def mean(self) -> tuple[float, ...] | None:
        """One number per channel; replaces the preset's."""

    @property
    def std(self) -> tuple[float, ...] | None:
        """One number per channel; replaces the preset's."""

    @property
    def resize(self) -> str | None:
        """The size in pixels: `S` for the short side, or `HxW`."""


def preprocessing(settings: PreprocessSettings, *, arrays: bool) -> Preprocess:
    """The preset or TOML file of `--preprocess`, changed by `--mean`, `--std` and `--resize`.

    Args:
        settings: the flags. Without `preprocess`, images get "imagenet" and arrays get "none".
        arrays: whether the folder holds arrays.

    Raises:
        CalibrationError: the preset is unknown, the file cannot be read, or a value is out of its range.
    """
    name = settings.preprocess or ("none" if arrays else "imagenet")
    if name in PRESETS:
        chosen = PRESETS[name]
    elif Path(name).suffix.lower() == ".toml" or Path(name).is_file():
        chosen = _from_toml(Path(name), PRESETS["none" if arrays else "unit"])
    else:
        close = difflib.get_close_matches(name.lower(), PRESETS, n=1)
        raise CalibrationError(
            f"--preprocess {Path(name).name}: expected {', '.join(PRESETS)} or a .toml file",
            f"did you mean `--preprocess {close[0]}`?" if close else "choose one, for example `--preprocess unit`",
        )
    flags = {key: getattr(settings, key) for key in ("mean", "std", "resize")}
    given = {key: value for key, value in flags.items() if value is not None}
    chosen = replace(chosen, arrays=arrays, **given)
    if not all(math.isfinite(number) for number in chosen.mean):
        raise CalibrationError("--mean: expected finite numbers, one per channel", "for example `--mean 0.5,0.5,0.5`")
    if chosen.target and arrays:  # `target` refuses a resize that cannot be parsed
        raise CalibrationError(
            f"--resize {chosen.resize}: arrays are not resized",
            "leave it out, and save the arrays in the size the model expects",
        )
    return chosen


def shape_text(shape: Sequence[int]) -> str:
    """A shape for messages, e.g. `3×32×32`."""
    return "×".join(str(side) for side in shape) or "a single number"


def count_text(count: int, noun: str) -> str:
    """A count with its noun for messages, e.g. `3 channels`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _from_toml(path: Path, default: Preprocess) -> Preprocess:
    """The preprocessing of a TOML file with `scale`, `mean`, `std` and `resize`; a missing key is as in `default`."""
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        repr(table)  # Python reads hexadecimal numbers of any length, and refuses to show long ones
    except FileNotFoundError:
        raise CalibrationError(f"{path.name}: no such file", "check the path given to `--preprocess`") from None
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise CalibrationError(
            f"{path.name}: not a TOML file that can be read ({why})",
            'write one key per line, for example `scale = "1/255"`',
        ) from error
    chosen = replace(default, name=path.name)
    for key, value in table.items():
        if key not in _TOML_KEYS:
            close = difflib.get_close_matches(key, _TOML_KEYS, n=1)
            raise CalibrationError(
                f"{path.name}: unknown key {key}, expected {', '.join(_TOML_KEYS)}",
                f"did you mean `{close[0]}`?" if close else "remove it",
            )
        example, read = _TOML_KEYS[key]
        try:
            chosen = replace(chosen, **{key: read(value)})
        except (TypeError, ValueError):
            raise CalibrationError(
                f"{path.name}: {key} cannot be {value!r}", f"write for example `{example}`"
            ) from None
    return chosen


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _positive(value: object) -> float:
    number = 1 / 255 if value == "1/255" else _number(value)
    if number <= 0:
        raise ValueError(value)
    return number


def _per_channel(read: Callable[[object], float]) -> Callable[[object], tuple[float, ...]]:
    return lambda value: tuple(map(read, value if isinstance(value, list) else [value]))


def _resize(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(value)
    return str(value)


# Key of a TOML file -> (an example for messages, the function that reads the value).
_TOML_KEYS: dict[str, tuple[str, Callable[[object], Any]]] = {
    "scale": ('scale = "1/255"', _positive),
    "mean": ("mean = [0.485, 0.456, 0.406]", _per_channel(_number)),
    "std": ("std = [0.229, 0.224, 0.225]", _per_channel(_positive)),
    "resize": ('resize = "256"', _resize),
}

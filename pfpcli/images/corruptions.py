"""Corruptions: damage to the 8-bit pixels of an image, before its preprocessing, at five strengths.

They are those of Hendrycks and Dietterich, Benchmarking neural network robustness to common corruptions and
perturbations (2019), for photographs (ImageNet-C) and for small images (CIFAR-10-C), with the constants of the authors'
code. Damage of the same seed is the same for the same file, whatever the order in which files are read.

    noise       Gaussian, added to each number            standard deviation, of a range of 1
    blur        Gaussian                                  standard deviation, in pixels
    brightness  added to the value of HSV                 of a range of 1
    contrast    distances from the mean of each channel   factor
    jpeg        compression                               quality of the JPEG
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

#: Source of the constants -> corruption -> one constant for each strength.
CONSTANTS: dict[str, dict[str, tuple[float, ...]]] = {
    "ImageNet-C": {
        "noise": (0.08, 0.12, 0.18, 0.26, 0.38),
        "blur": (1, 2, 3, 4, 6),
        "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),
        "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),
        "jpeg": (25, 18, 15, 10, 7),
    },
    "CIFAR-10-C": {
        "noise": (0.04, 0.06, 0.08, 0.09, 0.10),
        "blur": (0.4, 0.6, 0.7, 0.8, 1),
        "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),
        "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),
        "jpeg": (80, 65, 58, 50, 40),
    },
}
#: Inputs whose short side is at most this long are damaged as CIFAR-10-C is, all others as ImageNet-C.
SMALL = 64

_Pixels = NDArray[np.uint8]


def source_of(size: tuple[int, ...]) -> str:
    """Return the source of the constants for inputs of a shape without the batch: C, H, W."""
    return "CIFAR-10-C" if min(size[-2:]) <= SMALL else "ImageNet-C"


@dataclass(frozen=True)
class Corruption:
    """One kind of damage at one strength.

    Attributes:
        kind: one of `CORRUPTIONS`.
        constant: its strength, in the unit that the module says.
        seed: of the noise.
    """

    kind: str
    constant: float
    seed: int

    def on(self, pixels: _Pixels, name: str) -> _Pixels:
        """Return damaged pixels.

        Args:
            pixels: uint8[H, W], uint8[H, W, 3], or uint8[H, W, 4], whose alpha stays as it is.
            name: the name of the file, which decides the noise.
        """
        colour, alpha = (pixels, None) if pixels.ndim == 2 else (pixels[..., :3], pixels[..., 3:])
        rng = np.random.default_rng([self.seed, zlib.crc32(name.encode("utf-8", "replace"))])
        found = CORRUPTIONS[self.kind](colour, self.constant, rng)
        return found if alpha is None else np.concatenate([found, alpha], axis=2)


def _bytes(values: NDArray[np.float64]) -> _Pixels:
    """Numbers of a range of 1 as bytes."""
    found: _Pixels = np.rint(255 * values.clip(0, 1)).astype(np.uint8)
    return found


def _noise(pixels: _Pixels, deviation: float, rng: np.random.Generator) -> _Pixels:
    return _bytes(pixels / 255 + rng.normal(scale=deviation, size=pixels.shape))


def _blur(pixels: _Pixels, deviation: float, rng: np.random.Generator) -> _Pixels:
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(deviation)))


def _brightness(pixels: _Pixels, added: float, rng: np.random.Generator) -> _Pixels:
    """The value of HSV is the largest of the channels; hue and saturation stay if all channels grow by one factor."""
    values = pixels / 255
    value = values if values.ndim == 2 else values.max(axis=2, keepdims=True)
    brighter = np.minimum(value + added, 1)
    return _bytes(np.where(value > 0, values * brighter / np.maximum(value, 1 / 255), brighter))


def _contrast(pixels: _Pixels, factor: float, rng: np.random.Generator) -> _Pixels:
    values = pixels / 255
    mean = values.mean(axis=(0, 1), keepdims=True)
    return _bytes((values - mean) * factor + mean)


def _jpeg(pixels: _Pixels, quality: float, rng: np.random.Generator) -> _Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=int(quality))
    return np.asarray(Image.open(buffer))


#: Corruption -> what does it: (uint8[H, W] or uint8[H, W, 3], constant, noise) -> the same shape.
CORRUPTIONS: dict[str, Callable[[_Pixels, float, np.random.Generator], _Pixels]] = {
    "noise": _noise,
    "blur": _blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
}

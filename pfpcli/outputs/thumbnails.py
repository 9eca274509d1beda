"""Thumbnails: small pictures of images and of outputs, as data URIs that a page holds in itself."""

from __future__ import annotations

import base64
import io

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

#: The longest side of a picture, in pixels.
SIDE = 96
#: The quality of a JPEG, 1 to 95.
_QUALITY = 75
#: Hues of neighbouring classes lie this part of a turn apart (the golden angle), so that many classes differ.
_TURN = 0.381966


def reduced(image: Tensor) -> Tensor:
    """Return an image float[C, H, W] so that no side is longer than `SIDE`; a pixel is the mean of those it covers."""
    height, width = image.shape[-2:]
    factor = min(1.0, SIDE / max(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    return image.clone() if factor == 1 else F.adaptive_avg_pool2d(image[None], size)[0]


def reduced_map(classes: Tensor) -> Tensor:
    """Return a map of classes int64[H, W] so that no side is longer than `SIDE`; it takes every n-th pixel."""
    step = -(-max(classes.shape) // SIDE)
    return classes[::step, ::step].clone()


def picture(pixels: NDArray[np.float64]) -> str:
    """Return a JPEG of pixels float64[C, H, W] from 0 to 255; "" where C channels are no picture.

    One channel is grey, and three are red, green and blue. A fourth one is left out.
    """
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
        return ""
    shown = np.clip(np.nan_to_num(pixels), 0, 255).round().astype(np.uint8)
    return _jpeg(
        Image.fromarray(shown[0]) if len(shown) == 1 else Image.fromarray(np.moveaxis(shown[:3], 0, -1).copy())
    )


def class_picture(classes: NDArray[np.int64]) -> str:
    """Return a picture of a map of classes int64[H, W]: black for class 0, and a colour for each other class."""
    hues = (classes * _TURN % 1 * 255).astype(np.uint8)
    values = np.where(classes > 0, 225, 0).astype(np.uint8)
    colours = np.stack([hues, np.full_like(hues, 170), values], -1)
    return _png(Image.fromarray(colours, "HSV").convert("RGB"))


def mask_picture(is_set: NDArray[np.bool_]) -> str:
    """Return a black picture that is white where bool[H, W] is true."""
    return _png(Image.fromarray(np.where(is_set, 255, 0).astype(np.uint8)))


def _jpeg(image: Image.Image) -> str:
    return _uri(image, "jpeg", quality=_QUALITY)


def _png(image: Image.Image) -> str:
    return _uri(image.quantize(64) if image.mode == "RGB" else image, "png", optimize=True)


def _uri(image: Image.Image, kind: str, **options: object) -> str:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return f"data:image/{kind};base64,{base64.b64encode(out.getvalue()).decode()}"

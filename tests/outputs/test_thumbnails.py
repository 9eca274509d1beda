"""Thumbnails: small, and the picture that they are made of."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pfpcli.outputs.thumbnails import SIDE, class_picture, mask_picture, picture, reduced, reduced_map


def decoded(uri: str) -> Image.Image:
    head, _, body = uri.partition(",")
    assert head in ("data:image/jpeg;base64", "data:image/png;base64")
    return Image.open(io.BytesIO(base64.b64decode(body)))


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_is_the_picture_that_it_shows(channels: int) -> None:
    pixels = np.zeros((channels, 32, 48))
    pixels[0, :, 24:] = 200
    shown = decoded(picture(pixels))
    assert shown.size == (48, 32)
    red = np.asarray(shown.convert("RGB"))[..., 0].astype(int)
    assert abs(red[:, 36:] - 200).max() < 12
    assert red[:, :12].max() < 12


def test_values_beyond_those_of_a_picture_are_clipped() -> None:
    pixels = np.full((1, 8, 8), np.nan)
    pixels[:, :4], pixels[:, 4] = 1e9, -1e9
    assert np.asarray(decoded(picture(pixels))).max() >= 250


@pytest.mark.parametrize("shape", [(2, 8, 8), (5, 8, 8), (8, 8), (3, 1, 8, 8)])
def test_what_is_no_picture_has_none(shape: tuple[int, ...]) -> None:
    assert picture(np.zeros(shape)) == ""


def test_a_large_image_is_made_small_and_keeps_its_form() -> None:
    assert reduced(torch.rand(3, 400, 1000)).shape == (3, 38, SIDE)
    small = torch.rand(3, 9, 7)
    assert torch.equal(reduced(small), small)
    assert max(reduced_map(torch.zeros(400, 1000, dtype=torch.long)).shape) <= SIDE


def test_each_class_of_a_map_has_a_colour() -> None:
    shown = decoded(class_picture(np.arange(16, dtype=np.int64).reshape(4, 4))).convert("RGB")
    assert len({shown.getpixel((x, y)) for x in range(4) for y in range(4)}) == 16
    assert shown.getpixel((0, 0)) == (0, 0, 0)


def test_a_mask_is_white_where_it_is_true() -> None:
    shown = decoded(mask_picture(np.eye(3, dtype=bool)))
    assert np.array_equal(np.asarray(shown), 255 * np.eye(3, dtype=np.uint8))

"""Images and arrays that do or do not fit the input of a network."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from image_files import IMAGENET, NONE, RAW, UNIT, arrays, draw, folder, noise, read, refusal, save
from pfpcli.images.folder import open_folder
from pfpcli.images.input_fit import check_fits, common_size
from pfpcli.images.preprocess import PRESETS


@pytest.mark.parametrize(
    ("mode", "size", "found", "hint"),
    [
        ("L", (3, 8, 8), "are greyscale (1 channel), the model expects 3 channels", "to repeat the grey channel"),
        ("1", (3, 8, 8), "are greyscale (1 channel), the model expects 3 channels", "to repeat the grey channel"),
        ("I;16", (3, 8, 8), "are greyscale (1 channel), the model expects 3 channels", "to repeat the grey channel"),
        (
            "LA",
            (3, 8, 8),
            "are greyscale with alpha (2 channels), the model expects 3 channels",
            "to repeat the grey channel and drop the alpha channel",
        ),
        (
            "RGBA",
            (3, 8, 8),
            "are colour with alpha (4 channels), the model expects 3 channels",
            "to drop the alpha channel",
        ),
        ("RGB", (1, 8, 8), "are colour (3 channels), the model expects 1 channel", "to turn them grey"),
        ("P", (1, 8, 8), "are colour (3 channels), the model expects 1 channel", "to turn them grey"),
        (
            "LA",
            (1, 8, 8),
            "are greyscale with alpha (2 channels), the model expects 1 channel",
            "to drop the alpha channel",
        ),
    ],
    ids=["L-3", "1-3", "I;16-3", "LA-3", "RGBA-3", "RGB-1", "P-1", "LA-1"],
)
def test_a_folder_of_only_misfitting_images_needs_convert(
    tmp_path: Path, mode: str, size: tuple[int, ...], found: str, hint: str
) -> None:
    images = open_folder(folder(tmp_path, count=3, mode=mode))
    error = refusal(lambda: check_fits(images, size, UNIT, convert=False))
    assert error.message == f"imgs: all 3 images {found}"
    assert error.hint == f"{hint}, add --convert"
    check_fits(images, size, UNIT, convert=True)
    assert read(images, size, UNIT, convert=True).shape == (3, *size)
    assert images.converted == 3


def test_several_kinds_of_misfits_are_all_named(tmp_path: Path) -> None:
    root = folder(tmp_path, count=2, mode="L")
    save(root / "x.png", draw("RGBA"))
    error = refusal(lambda: check_fits(open_folder(root), (3, 8, 8), UNIT, convert=False))
    assert "all 3 images are greyscale (1 channel) or colour with alpha (4 channels)" in error.message
    assert error.hint == "to repeat the grey channel and drop the alpha channel, add --convert"


def test_a_single_misfitting_image_is_not_called_all_images(tmp_path: Path) -> None:
    error = refusal(lambda: check_fits(open_folder(folder(tmp_path, 1, "L")), (3, 8, 8), UNIT, convert=False))
    assert error.message == "imgs: the only image is greyscale (1 channel), the model expects 3 channels"


def test_an_unchecked_set_is_refused_by_batches_as_well(tmp_path: Path) -> None:
    images = open_folder(folder(tmp_path, mode="L"))
    assert "add --convert" in refusal(lambda: read(images, (3, 8, 8), UNIT)).hint


@pytest.mark.parametrize("size", [(3, 64), (3, 8, 8, 8), (6, 8, 8), (2, 8, 8), (10,)], ids=str)
def test_images_cannot_feed_an_input_that_is_no_image(tmp_path: Path, size: tuple[int, ...]) -> None:
    error = refusal(lambda: check_fits(open_folder(folder(tmp_path)), size, NONE, convert=True))
    shape = "×".join(map(str, size))
    assert error.message == f"imgs: holds images, the model's input is {shape}"
    assert error.hint == f"save the samples as .npy files of shape N×{shape}"


def test_four_channels_take_rgba_images_only(tmp_path: Path) -> None:
    root = folder(tmp_path, mode="RGBA")
    np.testing.assert_array_equal(
        read(open_folder(root), (4, 8, 8), RAW)[0], np.asarray(draw("RGBA")).transpose(2, 0, 1)
    )
    save(root / "z.png", draw("RGB"))
    error = refusal(lambda: check_fits(open_folder(root), (4, 8, 8), RAW, convert=True))
    assert error.message == "imgs: z.png has 3 channels, the model expects 4 channels"
    assert ".npy" in error.hint


def test_mean_and_std_of_another_length_than_the_channels_are_refused(tmp_path: Path) -> None:
    images = open_folder(folder(tmp_path, mode="L"))
    error = refusal(lambda: check_fits(images, (1, 8, 8), IMAGENET, convert=False))
    assert error.message == "imagenet: mean has 3 values, the model's input has 1 channel"
    assert "--mean" in error.hint
    assert "--preprocess unit" in error.hint
    error = refusal(lambda: check_fits(images, (1, 8, 8), replace(IMAGENET, mean=(0.5,)), convert=False))
    assert error.message == "imagenet: std has 3 values, the model's input has 1 channel"
    check_fits(images, (1, 8, 8), replace(IMAGENET, mean=(0.5,), std=(0.5,)), convert=False)


@pytest.mark.parametrize(
    ("resize", "message", "hint"),
    [
        ("6", "--resize 6: 0.png becomes 6×6, smaller than the model's input of 8×8", "`--resize 8`"),
        ("8x6", "--resize 8x6: 0.png becomes 8×6, smaller than the model's input of 8×8", "`--resize 8x8`"),
    ],
)
def test_a_resize_smaller_than_the_crop_is_refused(tmp_path: Path, resize: str, message: str, hint: str) -> None:
    images = open_folder(folder(tmp_path))
    error = refusal(lambda: check_fits(images, (3, 8, 8), replace(UNIT, resize=resize), convert=False))
    assert error.message == message
    assert hint in error.hint


def test_a_short_side_may_be_below_the_long_side_of_the_input_if_every_image_still_covers_it(tmp_path: Path) -> None:
    wide = open_folder(folder(tmp_path, width=16, height=8))
    preprocess = replace(UNIT, resize="8")
    check_fits(wide, (3, 8, 12), preprocess, convert=False)
    assert "becomes 8×16" in refusal(lambda: check_fits(wide, (3, 12, 8), preprocess, convert=False)).message


def test_images_of_one_size_tell_the_input_size(tmp_path: Path) -> None:
    root = folder(tmp_path, width=12, height=10)
    assert common_size(open_folder(root)) == (3, 10, 12)
    save(root / "other.png", draw(width=10, height=12))
    assert common_size(open_folder(root)) is None


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("P", 3), ("RGBA", 3), ("CMYK", 3)])
def test_only_greyscale_images_mean_one_channel(tmp_path: Path, mode: str, channels: int) -> None:
    save(tmp_path / "imgs" / ("a.jpg" if mode == "CMYK" else "a.png"), draw(mode))
    assert common_size(open_folder(tmp_path / "imgs")) == (channels, 8, 8)


def test_one_colour_image_among_greyscale_ones_means_three_channels(tmp_path: Path) -> None:
    root = folder(tmp_path, mode="L")
    save(root / "colour.png")
    assert common_size(open_folder(root)) == (3, 8, 8)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((5, 3, 8, 9), (3, 8, 9)),
        ((3, 8, 9), (3, 8, 9)),
        ((5, 8, 9, 3), (3, 8, 9)),
        ((5, 6, 8, 9), (6, 8, 9)),
        ((5, 3, 8, 3), None),
        ((5, 2, 4, 8, 9), (2, 4, 8, 9)),
        ((2, 100), (2, 100)),
    ],
    ids=str,
)
def test_arrays_of_one_shape_tell_the_input_size(
    tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...] | None
) -> None:
    root = arrays(tmp_path, a=np.zeros(shape, dtype=np.float32))
    assert common_size(open_folder(root)) == expected
    np.save(root / "b.npy", np.zeros((7, 7, 7, 7, 7, 7), dtype=np.uint8))
    assert common_size(open_folder(root)) is None


@pytest.mark.parametrize("preset", ["unit", "imagenet"])
def test_float_arrays_are_not_divided_by_255_by_a_preset(tmp_path: Path, preset: str) -> None:
    images = open_folder(arrays(tmp_path, a=noise(2, 3, 8, 8)))
    error = refusal(lambda: check_fits(images, (3, 8, 8), PRESETS[preset], convert=False))
    assert error.message == f"a.npy: holds floating-point values, {preset} divides by 255"
    check_fits(images, (3, 8, 8), replace(PRESETS[preset], name="own.toml"), convert=False)


def test_channels_last_arrays_are_turned_where_there_is_no_doubt(tmp_path: Path) -> None:
    content = noise(2, 8, 9, 3)
    images = open_folder(arrays(tmp_path, a=content), (3, 8, 9))
    check_fits(images, (3, 8, 9), NONE, convert=False)
    np.testing.assert_array_equal(read(images, (3, 8, 9), NONE), content.transpose(0, 3, 1, 2))


def test_channels_last_in_doubt_is_refused(tmp_path: Path) -> None:
    images = open_folder(arrays(tmp_path, a=noise(2, 3, 9, 3)), (3, 3, 9))
    error = refusal(lambda: check_fits(images, (3, 3, 9), NONE, convert=False))
    assert "channels may be first or last" in error.message
    assert error.hint.startswith("save the samples as N×3×3×9")


def test_channels_last_with_an_unusual_number_of_channels_is_refused(tmp_path: Path) -> None:
    images = open_folder(arrays(tmp_path, a=noise(2, 8, 9, 6)), (6, 8, 9))
    assert "channels may be first" in refusal(lambda: check_fits(images, (6, 8, 9), NONE, convert=False)).message


@pytest.mark.parametrize("shape", [(4, 3, 28, 28), (3, 28, 28), (28, 28), (4, 3, 2, 32, 32), ()], ids=str)
def test_arrays_of_another_shape_are_refused_with_both_shapes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    images = open_folder(arrays(tmp_path, a=np.zeros(shape, dtype=np.float32)), (3, 32, 32))
    error = refusal(lambda: check_fits(images, (3, 32, 32), NONE, convert=False))
    if shape[-3:] == (3, 28, 28):
        assert error.message == "a.npy: found samples of shape 3×28×28, the model expects 3×32×32"
    assert error.message.startswith("a.npy: found samples of shape ")
    assert "N×3×32×32" in error.hint

"""Preprocessing: presets, flags and TOML files, and how they are described."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from image_files import IMAGENET, NONE, RAW, UNIT, refusal
from pfpcli.images.preprocess import Preprocess, preprocessing
from pfpcli.settings import CompressSettings


def settings(**values: object) -> CompressSettings:
    return CompressSettings(model=Path("model.pt"), calib=Path("imgs"), **values)  # type: ignore[arg-type]


def test_imagenet_is_the_default_for_images_and_none_for_arrays() -> None:
    assert preprocessing(settings(), arrays=False) == IMAGENET
    assert preprocessing(settings(), arrays=True) == replace(NONE, arrays=True)


def test_mean_std_and_resize_override_the_preset() -> None:
    asked = settings(preprocess="unit", mean=(0.5,), std=(0.25,), resize="40x50")
    assert preprocessing(asked, arrays=False) == Preprocess("unit", 1 / 255, (0.5,), (0.25,), "40x50")
    assert preprocessing(settings(mean=(1.0, 2.0, 3.0)), arrays=False).std == IMAGENET.std


@pytest.mark.parametrize("by", [IMAGENET, UNIT, RAW, NONE, Preprocess("grey", 1 / 255, (0.5,), (0.25,))])
def test_values_can_be_restored_as_they_were_stored(by: Preprocess) -> None:
    stored = np.random.default_rng(0).integers(0, 256, (3, 5, 4))
    assert np.allclose(by.restored(by.normalised(stored)), stored, atol=1e-3)


@pytest.mark.parametrize(("typed", "close"), [("imagnet", "imagenet"), ("raw", "raw255"), ("UNIT", "unit")])
def test_an_unknown_preset_is_refused_with_the_nearest_one(typed: str, close: str) -> None:
    error = refusal(lambda: preprocessing(settings(preprocess=typed), arrays=False))
    assert error.message == f"--preprocess {typed}: expected imagenet, unit, raw255, none or a .toml file"
    assert error.hint == f"did you mean `--preprocess {close}`?"


@pytest.mark.parametrize("text", ["big", "0", "-3", "32x", "x32", "32x32x32", "3.5", ""])
def test_a_bad_resize_is_refused(text: str) -> None:
    error = refusal(lambda: preprocessing(settings(resize=text), arrays=False))
    assert error.message.startswith(f"--resize {text}: expected S (short side) or HxW")
    assert "256x320" in error.hint


def test_resize_is_refused_for_arrays() -> None:
    assert refusal(lambda: preprocessing(settings(resize="8"), arrays=True)).message.startswith("--resize 8: arrays")


def test_a_mean_that_is_not_finite_is_refused() -> None:
    assert refusal(lambda: preprocessing(settings(mean=(float("nan"),)), arrays=False)).message.startswith("--mean")


def test_a_toml_file_can_say_everything(tmp_path: Path) -> None:
    path = tmp_path / "prep.toml"
    path.write_text("scale = 2\nmean = [0.5, 1, 2]\nstd = 0.25\nresize = 40\n")
    expected = Preprocess("prep.toml", 2.0, (0.5, 1.0, 2.0), (0.25,), "40")
    assert preprocessing(settings(preprocess=str(path)), arrays=False) == expected
    assert preprocessing(settings(preprocess=str(path), resize="9x9"), arrays=False).resize == "9x9"


def test_what_a_toml_file_leaves_out_is_as_in_unit_for_images_and_none_for_arrays(tmp_path: Path) -> None:
    path = tmp_path / "prep.toml"
    path.write_text("mean = 0.5")
    assert preprocessing(settings(preprocess=str(path)), arrays=False).scale == 1 / 255
    assert preprocessing(settings(preprocess=str(path)), arrays=True).scale == 1
    path.write_text('scale = "1/255"')
    assert preprocessing(settings(preprocess=str(path)), arrays=True).scale == 1 / 255


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("means = [1]", "prep.toml: unknown key means, expected scale, mean, std, resize", "did you mean `mean`?"),
        ("crop = 3", "prep.toml: unknown key crop, expected scale, mean, std, resize", "remove it"),
        ("scale = 0", "prep.toml: scale cannot be 0", 'scale = "1/255"'),
        ("scale = true", "prep.toml: scale cannot be True", 'scale = "1/255"'),
        ('mean = ["a"]', "prep.toml: mean cannot be ['a']", "mean = ["),
        ("mean = [nan]", "prep.toml: mean cannot be [nan]", "mean = ["),
        ("std = [1, 0]", "prep.toml: std cannot be [1, 0]", "std = ["),
        ("resize = [8, 8]", "prep.toml: resize cannot be [8, 8]", 'resize = "256"'),
        ("scale = ", "prep.toml: not a TOML file that can be read (Invalid value", "one key per line"),
        (f"mean = [0x{'f' * 5000}]", "prep.toml: not a TOML file that can be read (", "one key per line"),
    ],
)
def test_a_toml_file_with_a_mistake_is_refused_by_name(tmp_path: Path, text: str, message: str, hint: str) -> None:
    (tmp_path / "prep.toml").write_text(text)
    error = refusal(lambda: preprocessing(settings(preprocess=str(tmp_path / "prep.toml")), arrays=False))
    assert error.message.startswith(message)
    assert hint in error.hint


def test_a_missing_toml_file_is_refused_by_name(tmp_path: Path) -> None:
    error = refusal(lambda: preprocessing(settings(preprocess=str(tmp_path / "no.toml")), arrays=False))
    assert error.message == "no.toml: no such file"


@pytest.mark.parametrize(
    ("preprocess", "size", "line"),
    [
        (
            IMAGENET,
            (3, 32, 32),
            "imagenet: /255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, short side 32, centre crop 32×32",
        ),
        (UNIT, None, "unit: /255, short side of the input, centre crop"),
        (UNIT, (3, 32, 64), "unit: /255, scaled to cover 32×64, centre crop 32×64"),
        (replace(RAW, resize="256"), (3, 224, 224), "raw255: 0..255 as stored, short side 256, centre crop 224×224"),
        (replace(NONE, resize="40x50"), (3, 40, 50), "none: 0..255 as stored, stretched to 40×50"),
        (replace(NONE, resize="40x50"), (3, 32, 32), "none: 0..255 as stored, stretched to 40×50, centre crop 32×32"),
        (replace(NONE, arrays=True), (3, 32, 32), "none: values as stored"),
        (Preprocess("p.toml", 0.5, (1.0,), (2.0,), arrays=True), (1, 9), "p.toml: ×0.5, mean 1, std 2"),
    ],
    ids=str,
)
def test_the_preprocessing_is_described_in_one_line(
    preprocess: Preprocess, size: tuple[int, ...] | None, line: str
) -> None:
    assert preprocess.describe(size) == line


def test_the_preprocessing_is_recorded_as_plain_values() -> None:
    assert replace(IMAGENET, resize="256").recorded() == {
        "name": "imagenet",
        "scale": 1 / 255,
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "resize": "256",
    }

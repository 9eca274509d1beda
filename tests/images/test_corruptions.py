"""Damage to pixels: five strengths, the constants of the sources, and the same damage for the same file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import image_files
from pfpcli.images.calibration import Calibration
from pfpcli.images.corruptions import CONSTANTS, CORRUPTIONS, Corruption, source_of
from pfpcli.images.decode import batches
from pfpcli.images.folder import open_folder
from pfpcli.images.preprocess import PRESETS


def photograph(seed: int = 0) -> np.ndarray:
    """A smooth picture with an edge, uint8[48, 48, 3]."""
    ramp = np.linspace(40, 180, 48)
    picture = np.stack([ramp[:, None] + 0 * ramp, ramp[None] + 0 * ramp[:, None], 0 * ramp[:, None] + 90 + 0 * ramp], 2)
    picture[12:30, 20:34] = (200, 60, 30 + seed)
    return picture.astype(np.uint8)


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.square(a.astype(float) - b.astype(float)).mean())


@pytest.mark.parametrize("source", CONSTANTS)
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_every_strength_damages_more_than_the_one_before(source: str, kind: str) -> None:
    whole = photograph()
    damaged = [Corruption(kind, constant, 0).on(whole, "a.png") for constant in CONSTANTS[source][kind]]
    assert {(each.dtype, each.shape) for each in damaged} == {(np.dtype(np.uint8), whole.shape)}
    found = [distance(each, whole) for each in damaged]
    assert found[0] > 0
    assert found == sorted(found)


@pytest.mark.parametrize("shape", [(16, 16), (16, 16, 3), (16, 16, 4)])
@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_grey_and_transparent_images_are_damaged_too_and_alpha_stays(kind: str, shape: tuple[int, ...]) -> None:
    whole = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    damaged = Corruption(kind, CONSTANTS["ImageNet-C"][kind][2], 0).on(whole, "a.png")
    assert damaged.shape == shape
    assert not np.array_equal(damaged, whole)
    if shape[-1] == 4:
        assert np.array_equal(damaged[..., 3], whole[..., 3])


def test_noise_is_the_same_for_the_same_file_and_seed_alone() -> None:
    whole, noise = photograph(), Corruption("noise", 0.1, 0)
    assert np.array_equal(noise.on(whole, "a.png"), noise.on(whole, "a.png"))
    assert not np.array_equal(noise.on(whole, "a.png"), noise.on(whole, "b.png"))
    assert not np.array_equal(noise.on(whole, "a.png"), Corruption("noise", 0.1, 1).on(whole, "a.png"))


def test_noise_has_the_standard_deviation_of_its_constant() -> None:
    grey = np.full((128, 128, 3), 128, np.uint8)
    assert Corruption("noise", 0.1, 0).on(grey, "a").std() / 255 == pytest.approx(0.1, rel=0.02)


def test_brightness_adds_to_the_value_and_keeps_hue_and_saturation() -> None:
    whole = photograph()
    brighter = Corruption("brightness", 0.1, 0).on(whole, "a.png")
    before, after = (np.asarray(Image.fromarray(each).convert("HSV")).astype(int) for each in (whole, brighter))
    assert np.abs(after[..., 2] - np.minimum(before[..., 2] + 25.5, 255)).max() <= 1
    assert np.abs(after[..., 1] - before[..., 1]).max() <= 3
    black = np.zeros((2, 2, 3), np.uint8)
    assert Corruption("brightness", 0.2, 0).on(black, "a.png").tolist() == np.full((2, 2, 3), 51).tolist()


def test_contrast_shrinks_distances_from_the_mean_of_each_channel() -> None:
    whole = photograph()
    flat = Corruption("contrast", 0.3, 0).on(whole, "a.png").astype(float)
    assert np.abs(flat.mean((0, 1)) - whole.mean((0, 1))).max() < 0.5
    assert np.allclose(flat[..., 0].std() / whole[..., 0].std(), 0.3, atol=0.01)


@pytest.mark.parametrize(
    ("size", "source"), [((3, 32, 32), "CIFAR-10-C"), ((3, 64, 300), "CIFAR-10-C"), ((3, 224, 224), "ImageNet-C")]
)
def test_small_inputs_are_damaged_less(size: tuple[int, ...], source: str) -> None:
    assert source_of(size) == source


def test_pixels_are_damaged_before_the_preprocessing(tmp_path: Path) -> None:
    images = open_folder(image_files.folder(tmp_path / "imgs", count=2))
    corruption = Corruption("contrast", 0.5, 0)
    whole, damaged = (
        next(batches(images, [0, 1], (3, 8, 8), each, 2, False))[0].numpy()
        for each in (PRESETS["raw255"], replace(PRESETS["raw255"], corruption=corruption))
    )
    first = images.sources[0].name
    pixels = np.moveaxis(whole[0], 0, -1).astype(np.uint8)
    assert np.array_equal(np.moveaxis(damaged[0], 0, -1), corruption.on(pixels, first))


def test_fewer_judging_images_are_spread_over_all_of_them(tmp_path: Path) -> None:
    images = open_folder(image_files.folder(tmp_path / "imgs", count=40))
    division = Calibration(images, images, (3, 8, 8), PRESETS["unit"], False, 0).divide(10, None)
    assert division.thinned(4).judged.tolist() == [0, 10, 20, 30]
    assert division.thinned(40) is division


def test_a_division_is_damaged_and_whole_again(tmp_path: Path) -> None:
    images = open_folder(image_files.folder(tmp_path / "imgs", count=4))
    division = Calibration(images, images, (3, 8, 8), PRESETS["unit"], False, 0).divide(2, None)
    damaged = division.damaged(Corruption("noise", 0.2, 0))
    whole, noisy, again = (next(each.judging())[0] for each in (division, damaged, damaged.damaged(None)))
    assert not np.array_equal(whole, noisy)
    assert np.array_equal(whole, again)

"""Decode: images and arrays as batches, to the bit."""

from __future__ import annotations

import shutil
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from image_files import IMAGENET, NONE, RAW, UNIT, arrays, draw, folder, names, noise, read, refusal, save, truncate
from pfpcli.images.decode import batches
from pfpcli.images.folder import open_folder
from pfpcli.images.input_fit import check_fits, common_size
from pfpcli.images.preprocess import PRESETS, Preprocess

# -------------------------------------------------------------------------------------------------------- images


@pytest.mark.parametrize("preset", list(PRESETS))
def test_every_preset_is_its_formula(tmp_path: Path, preset: str) -> None:
    preprocess = PRESETS[preset]
    out = read(open_folder(folder(tmp_path)), (3, 8, 8), preprocess)
    pixels = np.stack([np.asarray(draw(seed=seed)).transpose(2, 0, 1) for seed in range(3)]).astype(np.float64)
    mean = np.array(preprocess.mean or [0.0]).reshape(-1, 1, 1)
    std = np.array(preprocess.std or [1.0]).reshape(-1, 1, 1)
    assert out.dtype == np.float32
    assert out.flags.c_contiguous
    np.testing.assert_allclose(out, (pixels * preprocess.scale - mean) / std, rtol=1e-5, atol=1e-6)


def test_an_image_of_the_right_size_passes_through_untouched(tmp_path: Path) -> None:
    out = read(open_folder(folder(tmp_path, width=12, height=8)), (3, 8, 12), RAW)
    np.testing.assert_array_equal(out[0], np.asarray(draw(width=12)).transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("stored", "crop", "resized", "corner"),
    [
        ((21, 40), (16, 16), (16, 30), (0, 7)),
        ((40, 21), (16, 16), (30, 16), (7, 0)),
        ((9, 11), (16, 16), (16, 19), (0, 2)),
        ((20, 20), (8, 16), (16, 16), (4, 0)),
        ((20, 60), (8, 16), (8, 24), (0, 4)),
    ],
    ids=["wide", "tall", "small", "square into a wide input", "wide into a wide input"],
)
def test_the_default_resize_covers_the_input_and_crops_its_centre(
    tmp_path: Path, stored: tuple[int, int], crop: tuple[int, int], resized: tuple[int, int], corner: tuple[int, int]
) -> None:
    image = draw(height=stored[0], width=stored[1])
    save(tmp_path / "imgs" / "a.png", image)
    out = read(open_folder(tmp_path / "imgs"), (3, *crop), RAW)[0]
    whole = np.asarray(image.resize(resized[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    (top, left), (height, width) = corner, crop
    np.testing.assert_array_equal(out, whole[:, top : top + height, left : left + width])


def test_a_short_side_and_a_stretch_are_followed_by_the_centre_crop(tmp_path: Path) -> None:
    image = draw(height=20, width=31)
    save(tmp_path / "imgs" / "a.png", image)
    images = open_folder(tmp_path / "imgs")
    for resize, new, (top, left) in (("13", (13, 20), (2, 6)), ("11x15", (11, 15), (2, 4)), ("8x8", (8, 8), (0, 0))):
        whole = np.asarray(image.resize(new[::-1], Image.Resampling.BILINEAR)).transpose(2, 0, 1)
        out = read(images, (3, 8, 8), replace(RAW, resize=resize))[0]
        np.testing.assert_array_equal(out, whole[:, top : top + 8, left : left + 8])


@pytest.mark.parametrize("resize", [None, "9", "17", "11x15"], ids=str)
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK"])
def test_preprocessing_is_bit_identical_to_torchvision(tmp_path: Path, mode: str, resize: str | None) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    root = tmp_path / "imgs"
    suffix = "jpg" if mode == "CMYK" else "png"
    for seed, (height, width) in enumerate([(9, 9), (20, 31), (33, 14), (10, 57), (5, 6), (9, 13), (12, 9)]):
        save(root / f"{seed}.{suffix}", draw(mode, width, height, seed))
    target: int | tuple[int, ...] = 9 if resize is None else tuple(map(int, resize.split("x")))
    if isinstance(target, tuple) and len(target) == 1:
        target = target[0]
    theirs = transforms.Compose(
        [
            transforms.Resize(target),
            transforms.CenterCrop((9, 9)),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET.mean, IMAGENET.std),
        ]
    )
    images = open_folder(root)
    expected = [theirs(Image.open(root / source.name).convert("RGB")) for source in images.sources]
    ours = read(images, (3, 9, 9), replace(IMAGENET, resize=resize), convert=True)
    np.testing.assert_array_equal(ours, torch.stack(expected).numpy())


def test_a_few_misfitting_images_are_converted_and_counted_once(tmp_path: Path) -> None:
    root = folder(tmp_path, count=2)
    save(root / "grey.png", draw("L", seed=7))
    save(root / "glass.png", draw("RGBA", seed=8))
    images = open_folder(root)
    check_fits(images, (3, 8, 8), RAW, convert=False)
    assert images.converted == 0
    for _ in range(2):
        out = dict(zip(names(images), read(images, (3, 8, 8), RAW), strict=True))
    assert images.converted == 2
    for name in ("grey.png", "glass.png"):
        np.testing.assert_array_equal(out[name], np.asarray(Image.open(root / name).convert("RGB")).transpose(2, 0, 1))


def test_a_colour_image_among_greyscale_ones_turns_grey(tmp_path: Path) -> None:
    root = folder(tmp_path, count=2, mode="L")
    save(root / "colour.png", draw("RGB", seed=7))
    images = open_folder(root)
    out = read(images, (1, 8, 8), RAW)
    assert images.converted == 1
    np.testing.assert_array_equal(out[2, 0], np.asarray(draw("RGB", seed=7).convert("L")))


@pytest.mark.parametrize(("mode", "suffix"), [("P", "png"), ("P", "bmp"), ("CMYK", "jpg")])
def test_palette_and_cmyk_images_are_simply_decoded(tmp_path: Path, mode: str, suffix: str) -> None:
    path = save(tmp_path / "imgs" / f"a.{suffix}", draw(mode))
    images = open_folder(tmp_path / "imgs")
    with Image.open(path) as stored:
        assert stored.mode == mode
        expected = np.asarray(stored.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(images, (3, 8, 8), RAW)[0], expected)
    assert images.converted == 0


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency_keeps_its_colours_and_warns_nobody(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    draw("P").save(tmp_path / "imgs" / "a.png", transparency=bytes(range(100)))
    expected = np.asarray(draw("P").convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read(open_folder(tmp_path / "imgs"), (3, 8, 8), RAW)[0], expected)


def test_sixteen_bit_grey_keeps_its_high_byte(tmp_path: Path) -> None:
    images = open_folder(folder(tmp_path, mode="I;16"))
    expected = np.asarray(draw("I;16")) >> 8
    np.testing.assert_array_equal(read(images, (1, 8, 8), RAW)[0, 0], expected)
    np.testing.assert_array_equal(read(images, (3, 8, 8), RAW, convert=True)[0], np.stack([expected] * 3))


def test_the_exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "imgs").mkdir()
    draw(width=12).save(tmp_path / "imgs" / "a.png", exif=exif)
    images = open_folder(tmp_path / "imgs")
    assert common_size(images) == (3, 8, 12)
    np.testing.assert_array_equal(read(images, (3, 8, 12), RAW)[0], np.asarray(draw(width=12)).transpose(2, 0, 1))


def test_a_truncated_jpeg_is_dropped_from_its_batch_and_counted_once(tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    for label in "ab":
        for seed in range(3):
            save(root / label / f"{seed}.jpg", draw(width=64, height=64, seed=seed))
    truncate(root / "b" / "0.jpg")
    images = open_folder(root)
    assert images.skipped == 0, "the header is intact"
    for _ in range(2):
        out = list(batches(images, [3, 0, 5, 1], (3, 64, 64), UNIT, 2, False))
    assert [len(x) for x, _ in out] == [1, 2]
    assert [labels.tolist() for _, labels in out if labels is not None] == [[0], [1, 0]]
    assert images.skipped == 1
    assert "truncated" in images.tally.broken["b/0.jpg"]


def test_a_file_that_vanished_after_scanning_is_skipped(tmp_path: Path) -> None:
    root = folder(tmp_path)
    images = open_folder(root)
    (root / "1.png").unlink()
    assert len(read(images, (3, 8, 8), UNIT)) == 2
    assert images.tally.broken == {"1.png": "No such file or directory"}


def test_a_batch_without_a_single_readable_image_is_left_out(tmp_path: Path) -> None:
    root = folder(tmp_path, count=4)
    images = open_folder(root)
    (root / "0.png").unlink()
    (root / "1.png").unlink()
    assert [len(x) for x, _ in batches(images, range(4), (3, 8, 8), UNIT, 2, False)] == [2]


def test_nothing_left_to_read_is_refused(tmp_path: Path) -> None:
    images = open_folder(folder(tmp_path))
    shutil.rmtree(tmp_path / "imgs")
    error = refusal(lambda: read(images, (3, 8, 8), UNIT))
    assert error.message == ("imgs: none of the 3 images could be read (first: 0.png: No such file or directory)")


def test_a_needle_that_would_fill_the_memory_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path)
    save(root / "needle.png", draw(width=500, height=1))
    images = open_folder(root)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 8 * 500)
    assert len(read(images, (3, 16, 16), UNIT)) == 3
    assert "too narrow" in images.tally.broken["needle.png"]


@pytest.mark.parametrize("threads", [1, 2])
def test_batches_follow_the_indices_whatever_the_number_of_threads(tmp_path: Path, threads: int) -> None:
    images = open_folder(folder(tmp_path, count=7))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        out = list(batches(images, np.array([6, 2, 4, 0, 1]), (3, 8, 8), RAW, 2, False))
    finally:
        torch.set_num_threads(before)
    assert [tuple(x.shape) for x, _ in out] == [(2, 3, 8, 8), (2, 3, 8, 8), (1, 3, 8, 8)]
    expected = np.stack([np.asarray(draw(seed=seed)).transpose(2, 0, 1) for seed in (6, 2, 4, 0, 1)])
    np.testing.assert_array_equal(torch.cat([x for x, _ in out]).numpy(), expected)


def test_labels_travel_with_their_images(tmp_path: Path) -> None:
    for label in range(3):
        save(tmp_path / "imgs" / str(label) / "a.png", draw(seed=label))
    images = open_folder(tmp_path / "imgs")
    ((x, labels),) = batches(images, [2, 0], (3, 8, 8), RAW, 8, False)
    assert labels is not None
    assert labels.dtype == np.int64
    assert labels.tolist() == [2, 0]
    np.testing.assert_array_equal(x[0].numpy(), np.asarray(draw(seed=2)).transpose(2, 0, 1))


# -------------------------------------------------------------------------------------------------------- arrays


def test_float_arrays_are_taken_as_they_are(tmp_path: Path) -> None:
    a, b = noise(5, 3, 8, 8), noise(2, 3, 8, 8, seed=1)
    images = open_folder(arrays(tmp_path, a=a, b=b))
    assert images.arrays
    assert len(images) == 7
    assert images.labels is None
    np.testing.assert_array_equal(read(images, (3, 8, 8), NONE, batch=3), np.concatenate([a, b]))


def test_an_array_of_one_sample_counts_as_one(tmp_path: Path) -> None:
    a, b = noise(3, 8, 8), noise(3, 8, 8, seed=1)
    images = open_folder(arrays(tmp_path, a=a, b=b), (3, 8, 8))
    np.testing.assert_array_equal(read(images, (3, 8, 8), NONE), np.stack([a, b]))


@pytest.mark.parametrize("preset", ["unit", "raw255", "imagenet"])
def test_byte_arrays_are_preprocessed_as_images_are(tmp_path: Path, preset: str) -> None:
    pixels = np.stack([np.asarray(draw(seed=seed)).transpose(2, 0, 1) for seed in range(3)])
    from_images = read(open_folder(folder(tmp_path / "a")), (3, 8, 8), PRESETS[preset])
    (tmp_path / "b").mkdir()
    from_arrays = read(open_folder(arrays(tmp_path / "b", a=pixels)), (3, 8, 8), PRESETS[preset])
    np.testing.assert_array_equal(from_images, from_arrays)


@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.bool_, ">f4"], ids=str)
def test_any_numeric_type_becomes_float32(tmp_path: Path, dtype: np.typing.DTypeLike) -> None:
    content = (noise(2, 1, 4, 4) * 3).astype(dtype)
    out = read(open_folder(arrays(tmp_path, a=content)), (1, 4, 4), NONE)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, content.astype(np.float32))


def test_mean_and_std_apply_to_arrays_of_any_rank(tmp_path: Path) -> None:
    content = noise(2, 3, 10)
    preprocess = Preprocess("none", 1.0, (1.0, 2.0, 3.0), (2.0, 4.0, 8.0), arrays=True)
    out = read(open_folder(arrays(tmp_path, a=content), (3, 10)), (3, 10), preprocess)
    np.testing.assert_array_equal(out, (content - np.float32([[1], [2], [3]])) / np.float32([[2], [4], [8]]))


def test_samples_that_are_not_finite_are_skipped_one_by_one(tmp_path: Path) -> None:
    content = noise(4, 3, 8, 8).astype(np.float64)
    content[1, 0, 0, 0] = np.nan
    content[2, 0, 0, 0] = 1e300
    images = open_folder(arrays(tmp_path, a=content))
    assert len(read(images, (3, 8, 8), NONE)) == 2
    assert images.tally.broken == dict.fromkeys(["a.npy[1]", "a.npy[2]"], "holds values that are not finite")


def test_a_npy_is_mapped_not_loaded(tmp_path: Path) -> None:
    path = tmp_path / "imgs" / "large.npy"
    path.parent.mkdir()
    content = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(50, 3, 224, 224))
    content[49, 2, 0, 0] = 5
    del content
    tracemalloc.start()
    try:
        images = open_folder(path.parent)
        ((x, _),) = batches(images, [49], (3, 224, 224), NONE, 1, False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(images) == 50
    assert x[0, 2, 0, 0] == 5
    assert peak < path.stat().st_size / 5


def test_an_array_in_fortran_order_is_read_correctly(tmp_path: Path) -> None:
    content = noise(3, 2, 4, 5)
    images = open_folder(arrays(tmp_path, a=np.asfortranarray(content)))
    np.testing.assert_array_equal(read(images, (2, 4, 5), NONE), content)

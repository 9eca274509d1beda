"""The calibration folder: scanning, refusals and splits; every image is drawn here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from image_files import IMAGENET, NONE, RAW, UNIT, arrays, draw, folder, names, noise, read, refusal, save, truncate
from pfpcli.images.decode import batches
from pfpcli.images.folder import check_fits, common_size, open_folder, split
from pfpcli.images.preprocess import PRESETS

# ------------------------------------------------------------------------------------------------------ scanning


def test_every_image_suffix_is_found_in_any_case(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.JPEG", "c.Png", "d.bmp", "e.webp", "f.JPG"):
        save(tmp_path / "imgs" / name)
    (tmp_path / "imgs" / "notes.txt").write_text("not an image")
    images = open_folder(tmp_path / "imgs")
    assert names(images) == ["a.jpg", "b.JPEG", "c.Png", "d.bmp", "e.webp", "f.JPG"]
    assert (len(images), images.name, images.arrays, images.skipped) == (6, "imgs", False, 0)


def test_a_plain_folder_has_no_labels(tmp_path: Path) -> None:
    images = open_folder(folder(tmp_path))
    assert images.labels is None
    assert images.classes is None
    assert all(labels is None for _, labels in batches(images, range(3), (3, 8, 8), UNIT, 2, False))


def test_class_folders_give_labels_in_sorted_order_and_are_read_recursively(tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    for name in ("dog/z.png", "dog/a.png", "cat/deep/er/x.png", "cat/b.png", "ant/only.png"):
        save(root / name)
    images = open_folder(root)
    assert images.classes == ("ant", "cat", "dog")
    assert names(images) == ["ant/only.png", "cat/b.png", "cat/deep/er/x.png", "dog/a.png", "dog/z.png"]
    assert images.labels is not None
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [0, 1, 1, 2, 2]


def test_labels_and_order_are_those_of_torchvision(tmp_path: Path) -> None:
    datasets = pytest.importorskip("torchvision.datasets")
    root = tmp_path / "imgs"
    for name in ("b/x.png", "b/x-1/y.png", "b/x/y.png", "B/1.png", "a b/10.png", "a b/9.png", "a/2.JPG", "a-b/1.bmp"):
        save(root / name)
    theirs = datasets.ImageFolder(root)
    ours = open_folder(root)
    assert list(ours.classes or ()) == theirs.classes
    assert [str(root / name) for name in names(ours)] == [path for path, _ in theirs.samples]
    assert ours.labels is not None
    assert ours.labels.tolist() == theirs.targets


def test_an_empty_class_folder_keeps_its_place_among_the_classes(tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    (root / "a").mkdir(parents=True)
    save(root / "b" / "x.png")
    save(root / "c" / "x.png")
    images = open_folder(root)
    assert images.classes == ("a", "b", "c")
    assert images.labels is not None
    assert images.labels.tolist() == [1, 2]


def test_images_beside_sub_folders_mean_no_labels_but_all_are_found(tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    for name in ("top.png", "a/x.png", "b/c/y.png"):
        save(root / name)
    images = open_folder(root)
    assert images.labels is None
    assert images.classes is None
    assert sorted(names(images)) == ["a/x.png", "b/c/y.png", "top.png"]


def test_a_single_sub_folder_is_not_a_labelling(tmp_path: Path) -> None:
    save(tmp_path / "imgs" / "all" / "x.png")
    images = open_folder(tmp_path / "imgs")
    assert images.labels is None
    assert images.classes is None
    assert names(images) == ["all/x.png"]


def test_hidden_files_and_folders_do_not_count(tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    for name in ("a/x.png", "b/y.png", ".cache/z.png", "__MACOSX/q.png", "a/.thumbs/t.png"):
        save(root / name)
    for name in (".DS_Store", "._x.png", "a/._x.png"):
        (root / name).write_bytes(b"\0\5\x16\7")
    images = open_folder(root)
    assert images.classes == ("a", "b")
    assert names(images) == ["a/x.png", "b/y.png"]
    assert images.skipped == 0


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_a_link_to_its_own_folder_is_not_followed_for_ever(tmp_path: Path) -> None:
    root = folder(tmp_path, count=2)
    os.symlink(root, root / "again")
    os.symlink(tmp_path / "nowhere.png", root / "dangling.png")
    images = open_folder(root)
    assert names(images) == ["0.png", "1.png"]
    assert images.skipped == 1


def test_the_name_is_the_last_part_even_of_a_dot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder(tmp_path))
    assert open_folder(Path(".")).name == "imgs"


def test_broken_files_are_skipped_and_counted_while_scanning(tmp_path: Path) -> None:
    root = folder(tmp_path)
    (root / "text.jpg").write_text("hello")
    (root / "empty.png").write_bytes(b"")
    (root / "cut.png").write_bytes((root / "0.png").read_bytes()[:20])
    images = open_folder(root)
    assert len(images) == 3
    assert images.skipped == 3
    assert images.tally.broken["text.jpg"] == "cannot identify image file"


@pytest.mark.skipif(os.name == "nt", reason="no named pipes as files on Windows")
def test_a_pipe_is_skipped_not_waited_for(tmp_path: Path) -> None:
    root = folder(tmp_path)
    os.mkfifo(root / "pipe.png")
    assert open_folder(root).tally.broken == {"pipe.png": "not a regular file"}


@pytest.mark.parametrize("side", [30, 60], ids=["where Pillow warns", "where Pillow refuses"])
def test_a_decompression_bomb_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 800)
    root = folder(tmp_path)
    save(root / "bomb.png", draw(width=side, height=side))
    images = open_folder(root)
    assert len(images) == 3
    assert "decompression bomb" in images.tally.broken["bomb.png"]


def test_a_format_outside_the_list_is_not_opened_under_a_false_suffix(tmp_path: Path) -> None:
    root = folder(tmp_path)
    draw("L").save(root / "vector.png", format="EPS")
    assert open_folder(root).tally.broken == {"vector.png": "cannot identify image file"}


def test_a_png_named_jpg_is_read(tmp_path: Path) -> None:
    (tmp_path / "imgs").mkdir()
    draw().save(tmp_path / "imgs" / "a.jpg", format="PNG")
    np.testing.assert_array_equal(
        read(open_folder(tmp_path / "imgs"), (3, 8, 8), RAW)[0], np.asarray(draw()).transpose(2, 0, 1)
    )


# ------------------------------------------------------------------------------------------------------ refusals


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    assert refusal(lambda: open_folder(tmp_path / "nope")).message == "nope: no such folder"


def test_a_file_instead_of_a_folder_is_refused(tmp_path: Path) -> None:
    error = refusal(lambda: open_folder(save(tmp_path / "a.png")))
    assert error.message == "a.png: is a file, expected a folder"
    assert "--calib" in error.hint


def test_an_empty_folder_is_refused_with_what_is_looked_for(tmp_path: Path) -> None:
    (tmp_path / "imgs" / "sub").mkdir(parents=True)
    (tmp_path / "imgs" / "a.txt").write_text("hello")
    error = refusal(lambda: open_folder(tmp_path / "imgs"))
    assert error.message == "imgs: no images or arrays found"
    assert ".jpg .jpeg .png .bmp .webp or .npy .npz" in error.hint


def test_only_broken_images_are_refused_with_the_first_reason(tmp_path: Path) -> None:
    root = tmp_path / "imgs"
    root.mkdir()
    for name in "abcdefg":
        (root / f"{name}.jpg").write_text("hello")
    error = refusal(lambda: open_folder(root))
    assert error.message == "imgs: none of the 7 images could be read (first: a.jpg: cannot identify image file)"
    for name in "bcdefg":
        (root / f"{name}.jpg").unlink()
    error = refusal(lambda: open_folder(root))
    assert error.message == "imgs: the only image could not be read (a.jpg: cannot identify image file)"


def test_images_mixed_with_arrays_are_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, count=1)
    np.save(root / "a.npy", np.zeros((3, 8, 8)))
    assert refusal(lambda: open_folder(root)).message == "imgs: holds both images and arrays (0.png, a.npy)"


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


# -------------------------------------------------------------------------------------------------- common size


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


# -------------------------------------------------------------------------------------------------------- arrays


@pytest.mark.parametrize("size", [(2, 50), (1, 4, 6, 6), (3, 8, 8), (7,)], ids=str)
@pytest.mark.parametrize("count", [None, 4], ids=["one sample", "N samples"])
def test_the_models_input_tells_samples_from_a_sample(tmp_path: Path, size: tuple[int, ...], count: int | None) -> None:
    content = noise(*size) if count is None else noise(count, *size)
    images = open_folder(arrays(tmp_path, a=content), size)
    check_fits(images, size, NONE, convert=False)
    np.testing.assert_array_equal(read(images, size, NONE), content.reshape(-1, *size))


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


def test_a_npz_carries_samples_and_labels(tmp_path: Path) -> None:
    x, y = noise(4, 3, 8, 8), np.array([3, 1, 1, 0], dtype=np.uint8)
    images = open_folder(
        arrays(tmp_path, a={"y": y, "x": x}, b={"labels": y[:, None], "images": x}, c={"y": y, "d": x})
    )
    assert len(images) == 12
    assert images.classes is None
    assert images.labels is not None
    assert images.labels.dtype == np.int64
    assert images.labels.tolist() == [3, 1, 1, 0] * 3
    ((out, labels),) = batches(images, [5, 0, 11], (3, 8, 8), NONE, 8, False)
    assert labels is not None
    assert labels.tolist() == [1, 3, 0]
    np.testing.assert_array_equal(out.numpy(), x[[1, 0, 3]])


def test_a_npz_without_labels_takes_its_first_array(tmp_path: Path) -> None:
    x = noise(4, 3, 8, 8)
    images = open_folder(arrays(tmp_path, a={"first": x, "second": noise(2, 2)}))
    assert images.labels is None
    np.testing.assert_array_equal(read(images, (3, 8, 8), NONE), x)


def test_labels_in_only_some_of_the_files_are_not_used(tmp_path: Path) -> None:
    x = noise(4, 3, 8, 8)
    assert open_folder(arrays(tmp_path, a={"x": x, "y": np.arange(4)}, b={"x": x})).labels is None


def test_labels_tell_samples_from_a_sample_where_the_model_says_nothing(tmp_path: Path) -> None:
    images = open_folder(arrays(tmp_path, a={"x": noise(4, 2, 50), "y": np.arange(4)}))
    assert len(images) == 4
    assert common_size(images) == (2, 50)


@pytest.mark.parametrize("y", [np.arange(3), np.zeros((4, 10), int), np.zeros(4)], ids=["count", "one-hot", "float"])
def test_labels_that_do_not_match_the_samples_are_refused(tmp_path: Path, y: NDArray[np.generic]) -> None:
    root = arrays(tmp_path, a={"x": noise(4, 3, 8, 8), "y": y})
    error = refusal(lambda: open_folder(root))
    assert error.message.startswith("a.npz: labels have shape ")
    assert "expected 4 whole numbers" in error.message


def test_arrays_in_class_folders_are_labelled_sample_by_sample(tmp_path: Path) -> None:
    for label, count in (("a", 2), ("b", 3)):
        (tmp_path / "imgs" / label).mkdir(parents=True)
        np.save(tmp_path / "imgs" / label / "x.npy", noise(count, 3, 8, 8))
    images = open_folder(tmp_path / "imgs")
    assert images.classes == ("a", "b")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 0, 1, 1, 1]


def test_broken_arrays_are_skipped_and_pickles_never_loaded(tmp_path: Path) -> None:
    root = arrays(tmp_path, good=noise(2, 3, 8, 8), text=np.array(["a"]), empty=np.zeros((0, 3, 8, 8)))
    np.save(root / "object.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(root / "cut.npy", noise(2, 3, 8, 8))
    truncate(root / "cut.npy")
    (root / "not.npy").write_bytes(b"hello there")
    (root / "not.npz").write_bytes(b"hello there")
    np.savez(root / "labels_only.npz", y=np.arange(3))
    images = open_folder(root)
    assert names(images) == ["good.npy"]
    assert images.skipped == 7
    assert str(tmp_path) not in " ".join(images.tally.broken.values())


# --------------------------------------------------------------------------------------------------------- split


def test_a_split_is_disjoint_complete_and_repeatable() -> None:
    score, rest = split(20, None, 8, seed=3)
    assert (len(score), len(rest)) == (8, 12)
    assert score.dtype == np.int64
    assert sorted([*score, *rest]) == list(range(20))
    again, other = split(20, None, 8, seed=3), split(20, None, 8, seed=4)
    assert np.array_equal(score, again[0])
    assert np.array_equal(rest, again[1])
    assert not np.array_equal(score, other[0])


def test_too_few_samples_leave_nothing_to_evaluate_on() -> None:
    score, rest = split(5, None, 8, seed=0)
    assert sorted(score) == list(range(5))
    assert len(rest) == 0


def test_a_split_keeps_the_proportions_of_the_classes() -> None:
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    score, rest = split(100, labels, 20, seed=1)
    assert np.bincount(labels[score]).tolist() == [12, 6, 2]
    assert np.bincount(labels[rest]).tolist() == [48, 24, 8]


def test_a_split_with_more_classes_than_samples_takes_no_class_twice() -> None:
    labels = np.repeat(np.arange(50), 4)
    score, _ = split(200, labels, 10, seed=0)
    assert len(set(labels[score])) == 10
    assert set(labels[score]) != set(labels[split(200, labels, 10, seed=1)[0]])

"""Scanning a folder of images or arrays: files, labels, classes, and folders that are refused."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from image_files import RAW, UNIT, draw, folder, names, read, refusal, save
from pfpcli.images.decode import batches
from pfpcli.images.folder import open_folder


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


def test_the_hash_of_a_folder_covers_the_paths_and_the_contents_of_its_images(tmp_path: Path) -> None:
    root = folder(tmp_path, count=2)
    first = open_folder(root).sha256
    (root / "notes.txt").write_text("no image")
    assert open_folder(root).sha256 == first
    root = root.rename(tmp_path / "other")
    assert open_folder(root).sha256 == first
    content = (root / "1.png").read_bytes()
    (root / "1.png").write_bytes(content[:-1] + b"\0")  # as large as before
    assert open_folder(root).sha256 != first
    (root / "1.png").rename(root / "2.png")
    (root / "2.png").write_bytes(content)
    assert open_folder(root).sha256 != first


def test_each_image_is_read_once_for_all_hashes(tmp_path: Path) -> None:
    images = open_folder(folder(tmp_path, count=2))
    first = images.sha256
    (images.root / "1.png").unlink()
    assert images.sha256 == first

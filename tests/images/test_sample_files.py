"""Array files: samples and labels of .npy and .npz files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from image_files import NONE, arrays, names, noise, read, refusal, truncate
from pfpcli.images.decode import batches
from pfpcli.images.folder import open_folder
from pfpcli.images.input_fit import check_fits, common_size


@pytest.mark.parametrize("size", [(2, 50), (1, 4, 6, 6), (3, 8, 8), (7,)], ids=str)
@pytest.mark.parametrize("count", [None, 4], ids=["one sample", "N samples"])
def test_the_models_input_tells_samples_from_a_sample(tmp_path: Path, size: tuple[int, ...], count: int | None) -> None:
    content = noise(*size) if count is None else noise(count, *size)
    images = open_folder(arrays(tmp_path, a=content), size)
    check_fits(images, size, NONE, convert=False)
    np.testing.assert_array_equal(read(images, size, NONE), content.reshape(-1, *size))


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

"""A folder of some of a network's classes is numbered by the list of all of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfpcli.errors import CalibrationError, InputError
from pfpcli.images.class_names import number_by_names, read_class_names
from pfpcli.images.folder import ImageSet, open_folder

NAMES = ("tabby", "beagle", "robin", "sorrel")


def folder(path: Path, *classes: str) -> ImageSet:
    for name in classes:
        (path / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(path / name / "one.png")
    return open_folder(path)


def test_class_folders_get_the_numbers_of_the_outputs(tmp_path: Path) -> None:
    images = folder(tmp_path, "robin", "beagle")
    assert images.labels is not None
    assert images.labels.tolist() == [0, 1]
    numbered = number_by_names(images, NAMES)
    assert numbered.labels is not None
    assert numbered.labels.tolist() == [1, 2]  # beagle, robin
    assert numbered.classes == NAMES


def test_a_folder_that_is_no_class_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    images = folder(tmp_path, "robin", "beagel")
    with pytest.raises(CalibrationError, match="class folder beagel is not among the 4 names") as error:
        number_by_names(images, NAMES)
    assert error.value.hint == "did you mean beagle?"


def test_numbers_in_an_npz_are_those_of_the_outputs_already(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 3, 4, 4), np.float32), y=np.array([3, 0]))
    images = open_folder(tmp_path)
    assert number_by_names(images, NAMES) is images


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "found 0 names"),
        (b"one\n\n", "found 1 names"),
        (b"a\nb\na\n", "line 3: 'a' is there already"),
        (b"\xff\xfe\x00\n", "not a text in UTF-8"),
        (None, "No such file"),
    ],
)
def test_a_file_that_is_no_list_of_classes_is_refused(text: bytes | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "names.txt"
    if text is not None:
        file.write_bytes(text)
    with pytest.raises(InputError, match=said):
        read_class_names(file)


def test_names_are_read_in_order_without_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes("\ufefftabby\r\nbeagle  \nrobin\n\n".encode())
    assert read_class_names(tmp_path / "names.txt") == ("tabby", "beagle", "robin")

"""Labels that lie beside the images: a CSV of classes, masks, target images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfpcli.errors import PfpError
from pfpcli.images.calibration import open_calibration


@dataclass(frozen=True)
class Given:
    """Settings of images."""

    calib: Path
    labels: Path | None
    eval: Path | None = None
    classes: Path | None = None
    input_size: tuple[int, ...] | None = (3, 8, 8)
    preprocess: str | None = "unit"
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None
    convert: bool = False
    seed: int = 0


class Network:
    """Any network."""

    name, input_size = "net", (3, 8, 8)

    def takes(self, size: tuple[int, ...]) -> bool:
        return True


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Six images of 8×8, i.png, in a folder of its own."""
    folder = tmp_path / "imgs"
    folder.mkdir()
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


def labelled(given: Given) -> tuple[list[str], list[np.ndarray]]:
    """The names of the judging images, and what is known about them."""
    calibration = open_calibration(given, Network())
    division = calibration.divide(2, 2)
    found = [labels for _, labels in division.judging()]
    assert all(each is not None for each in found)
    return [division.judges.locate(int(i))[0].name for i in division.judged], [row for each in found for row in each]


def test_a_csv_names_the_class_of_each_image(images: Path, tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("file,label\n" + "".join(f"{i}.png,{'dog' if i % 2 else 'cat'}\n" for i in range(6)))
    names, found = labelled(Given(images, csv))
    assert [int(label) for label in found] == [int(name[0]) % 2 for name in names]
    classes = tmp_path / "classes.txt"
    classes.write_text("bird\ndog\nlabel\ncat\n")
    _, found = labelled(Given(images, csv, classes=classes))
    assert [int(label) for label in found] == [1 if int(name[0]) % 2 else 3 for name in names]


def test_a_csv_may_number_the_classes_and_name_files_without_their_suffix(images: Path, tmp_path: Path) -> None:
    csv = tmp_path / "labels.csv"
    csv.write_text("".join(f"{i},{7 - i}\n" for i in range(6)))
    names, found = labelled(Given(images, csv))
    assert [int(label) for label in found] == [7 - int(name[0]) for name in names]


def test_masks_are_read_with_the_crop_of_their_images(images: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(6):
        pixels = np.full((8, 8), i, np.uint8)
        pixels[2:, :] = 255
        Image.fromarray(pixels).save(masks / f"{i}.png")
    names, found = labelled(Given(images, masks, resize="16x16"))
    for name, mask in zip(names, found, strict=True):
        assert mask.shape == (8, 8)
        assert mask.dtype == np.int64
        assert (mask == 255).all()  # twice as large, and the centre is cut out: rows 4 to 11 of 16
        assert name.endswith(".png")
    names, found = labelled(Given(images, masks))
    assert [int(mask[0, 0]) for mask in found] == [int(name[0]) for name in names]


def test_target_images_may_be_larger_than_their_images(images: Path, tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    for i in range(6):
        Image.fromarray(np.full((24, 24, 3), 51, np.uint8)).save(targets / f"{i}.png")
    _, found = labelled(Given(images, targets))
    assert all(each.shape == (3, 24, 24) for each in found)
    np.testing.assert_allclose(found[0], 0.2, atol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png,cat\n", "labels.csv: lacks 5 of the 6 images of imgs, first 1.png"),
        ("a.png,cat\n", "labels.csv: names no image of imgs"),
        ("0.png;cat\n", "labels.csv: line 1 has 1 fields, expected `file,label`"),
        ("", "labels.csv: it is empty"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_what_is_missing(
    text: str, message: str, images: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(PfpError) as error:
        labelled(Given(images, tmp_path / "labels.csv"))
    assert message in error.value.message


def test_a_mask_of_another_size_is_named(images: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for i in range(6):
        Image.fromarray(np.zeros((5, 9), np.uint8)).save(masks / f"{i}.png")
    with pytest.raises(PfpError, match=r"--labels: \d.png: is 5×9, its image 8×8"):
        labelled(Given(images, masks))

"""The division of the images: which file is which judging image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from image_files import UNIT
from pfpcli.images.calibration import Calibration
from pfpcli.images.folder import open_folder


def drawn(folder: Path, count: int) -> Path:
    """A folder of images, each of one colour: image i has the value i everywhere."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(folder / f"{number:02}.png")
    return folder


def test_names_follow_the_judging_images_and_leave_out_broken_ones(tmp_path: Path) -> None:
    folder = drawn(tmp_path / "imgs", 12)
    broken = folder / "07.png"
    broken.write_bytes(broken.read_bytes()[:45])
    division = Calibration(open_folder(folder), None, (3, 8, 8), UNIT, False, 0).divide(4, 4)
    # all images judge, so that the broken one does
    division = replace(division, judged=np.arange(11, -1, -1))
    values = [round(255 * float(image[0, 0, 0])) for images, _ in division.judging() for image in images]
    assert division.judged_names() == [f"{value:02}.png" for value in values]
    assert 7 not in values

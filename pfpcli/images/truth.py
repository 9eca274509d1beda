"""Truth: labels that lie beside the images: a CSV of classes, or a folder of masks or of target images."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pfpcli.errors import CalibrationError, InputError
from pfpcli.images.folder import ImageSet
from pfpcli.images.preprocess import Preprocess, shape_text
from pfpcli.images.sample_files import IMAGE_SUFFIXES, open_image

_T = TypeVar("_T")

#: Modes of an image whose pixels are classes, not colours.
_MASKS = ("1", "L", "P", "I", "I;16")


def with_truth(images: ImageSet, path: Path, names: tuple[str, ...] | None) -> ImageSet | None:
    """Return a folder with the labels of a CSV, or the masks or target images of another folder.

    Args:
        images: the folder.
        path: the CSV with a row `file,label` for each image, or the folder with a file of the same stem for each.
        names: all classes in the order of the network's outputs; None numbers the names in the CSV in sorted order.

    Returns:
        The folder; None if no file of it is named.

    Raises:
        CalibrationError: some files of the folder are not named, or a label is no class.
        InputError: the CSV or the folder cannot be read.
    """
    if images.arrays:
        raise CalibrationError(f"{images.name}: holds arrays", "put their labels into the .npz, as `y`")
    if path.is_dir():
        return _with_targets(images, path)
    return _with_classes(images, path, names)


def _with_classes(images: ImageSet, path: Path, names: tuple[str, ...] | None) -> ImageSet | None:
    rows = _rows(path)
    found: list[str | None] = []
    for source in images.sources:
        keys = (source.name, Path(source.name).name, Path(source.name).stem)
        found.append(next((rows[key] for key in keys if key in rows), None))
    labels = _complete(images, found, path)
    if labels is None:
        return None
    if all(label.isdigit() for label in labels):
        return replace(images, labels=np.asarray([*map(int, labels)], np.int64), classes=names)
    known = names or tuple(sorted(set(rows.values())))
    place = {name: i for i, name in enumerate(known)}
    for label in labels:
        if label not in place:
            raise CalibrationError(
                f"--labels {path.name}: {label!r} is not among the {len(known)} names of --classes",
                f"the names are like {', '.join(known[:3])}",
            )
    return replace(images, labels=np.asarray([place[label] for label in labels], np.int64), classes=known)


def _rows(path: Path) -> dict[str, str]:
    """File -> label, of a CSV."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        why = getattr(error, "strerror", None) or "not a CSV in UTF-8"
        raise InputError(
            f"--labels {path.name}: cannot be read ({why})", "name a CSV with rows `file,label`, or a folder of masks"
        ) from None
    bad = next((i for i, row in enumerate(rows, 1) if len(row) != 2), None)
    if bad is not None or not rows:
        found = f"line {bad} has {len(rows[bad - 1])} fields" if bad is not None else "it is empty"
        raise InputError(f"--labels {path.name}: {found}, expected `file,label`", "for example `cat1.jpg,cat`")
    return {name.strip(): label.strip() for name, label in rows}


def _with_targets(images: ImageSet, folder: Path) -> ImageSet | None:
    there = {file.stem: file for file in sorted(folder.rglob("*")) if file.suffix.lower() in IMAGE_SUFFIXES}
    targets = _complete(images, [there.get(Path(source.name).stem) for source in images.sources], folder)
    return None if targets is None else replace(images, targets=tuple(targets))


def _complete(images: ImageSet, found: list[_T | None], path: Path) -> list[_T] | None:
    """All that was found; None if nothing was."""
    known = [each for each in found if each is not None]
    if not known:
        return None
    if len(known) < len(found):
        missing = images.sources[next(i for i, each in enumerate(found) if each is None)].name
        raise CalibrationError(
            f"--labels {path.name}: lacks {len(found) - len(known)} of the {len(found)} images of {images.name}, "
            f"first {missing}",
            "add them, or take these images out of the folder",
        )
    return known


def read_target(
    path: Path, stored: tuple[int, int], size: tuple[int, ...], preprocess: Preprocess
) -> NDArray[np.int64] | NDArray[np.float32]:
    """Read a mask or a target image, resized and cropped as its image is.

    Args:
        path: the file.
        stored: height and width of the image.
        size: C, H, W of the network's input.
        preprocess: of the images.

    Returns:
        int64[H, W], the classes of a mask; or float32[C, rH, rW], a picture that is r times as large as its image.

    Raises:
        ValueError: the sizes do not fit.
    """
    with open_image(path) as opened:
        opened.load()
        image = opened.copy()
    ratio = image.height / stored[0]
    if ratio != int(ratio) or image.width != ratio * stored[1]:
        raise ValueError(f"is {shape_text((image.height, image.width))}, its image {shape_text(stored)}")
    times = int(ratio)
    new = preprocess.resized(stored, (size[1], size[2]))
    is_mask = image.mode in _MASKS and (image.mode != "L" or size[0] != 1)
    if not is_mask:
        image = image.convert("L" if size[0] == 1 else "RGB")
    wanted = (times * new[1], times * new[0])
    if image.size != wanted:
        image = image.resize(wanted, Image.Resampling.NEAREST if is_mask else Image.Resampling.BILINEAR)
    height, width = times * size[1], times * size[2]
    top, left = (times * round((a - b) / 2) for a, b in zip(new, size[1:], strict=True))
    pixels = np.asarray(image)[top : top + height, left : left + width]
    if is_mask:
        return pixels.astype(np.int64)
    return preprocess.normalised(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0))

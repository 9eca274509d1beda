"""Sample files: what the header of an image or array file says, without reading the samples."""

from __future__ import annotations

import math
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pfpcli.errors import CalibrationError
from pfpcli.images.preprocess import shape_text
from pfpcli.limits import check_unpacked

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
ARRAY_SUFFIXES = (".npy", ".npz")

# The formats that are opened, whatever the suffix says. Never all of Pillow's formats: EPS would run Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")

# Pillow's mode of an image -> its number of channels as stored; 3 for other modes.
_STORED_CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "LA": 2, "RGBA": 4}


@dataclass(frozen=True)
class SampleFile:
    """One file of the folder, as its header describes it.

    Attributes:
        name: path relative to the folder, with forward slashes.
        shape: the shape of one sample: (channels, H, W) of an image as stored, the array's own shape otherwise.
        count: the number of samples in the file.
        floating: whether the values are floating point.
        stacked: whether the first axis of the array counts the samples.
        key: the name of the array inside a .npz.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1
    floating: bool = False
    stacked: bool = False
    key: str | None = None


def image_header(path: Path, name: str) -> SampleFile:
    """The header of an image file; name: as in `SampleFile`."""
    with open_image(path) as image:
        return SampleFile(name, (_STORED_CHANNELS.get(image.mode, 3), image.height, image.width))


def array_header(path: Path, name: str, size: tuple[int, ...] | None) -> tuple[SampleFile, NDArray[np.int64] | None]:
    """The header of a .npy or .npz file, and the labels int64[N] of a .npz.

    Args:
        path: the file.
        name: as in `SampleFile`.
        size: the shape of one sample, if it is known; see `pfpcli.images.folder.open_folder`.

    Raises:
        CalibrationError: the labels do not match the samples.
        ValueError: the file holds no samples; the message says why.
    """
    key, labels = None, None
    if path.suffix.lower() == ".npy":
        mapped = map_npy(path)
        shape, dtype = mapped.shape, mapped.dtype
    else:
        headers = _npz_headers(path)
        label_key = next((k for k in ("y", "labels") if k in headers), None)
        key = next((k for k in ("x", "images", *headers) if k in headers and k != label_key), None)
        if key is None:
            raise ValueError("no array of samples in it")
        shape, dtype = headers[key]
        for each in (key, label_key):
            if each is not None:
                sizes, kind = headers[each]
                check_unpacked(path.name, path.stat().st_size, math.prod(sizes) * kind.itemsize)
        labels = None if label_key is None else unpack_npz(path, label_key)
    if dtype.kind not in "buif":
        raise ValueError(f"holds values of type {dtype}, not numbers")
    if 0 in shape:
        raise ValueError("holds no samples")
    stacked = _is_stacked(shape, size, labels)
    count, sample = (shape[0], shape[1:]) if stacked else (1, shape)
    if labels is not None:
        _check_labels(path, labels, count)
    source = SampleFile(name, sample, count, dtype.kind == "f", stacked, key)
    return source, None if labels is None else labels.reshape(-1).astype(np.int64)


def _is_stacked(shape: tuple[int, ...], size: tuple[int, ...] | None, labels: NDArray[Any] | None) -> bool:
    """Whether the first axis of an array counts samples."""
    if size is not None and len(shape) - len(size) in (0, 1):
        return len(shape) > len(size)
    return len(shape) > 3 or (labels is not None and len(shape) > 1 and labels.size == shape[0])


def _check_labels(path: Path, labels: NDArray[Any], count: int) -> None:
    if labels.size != count or labels.dtype.kind not in "iu":
        raise CalibrationError(
            f"{path.name}: labels have shape {shape_text(labels.shape)} and type {labels.dtype}, "
            f"expected {count} whole numbers, one per sample",
            "save class indices as `y`, or leave the labels out",
        )


def _npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """The shape and type of every array in a .npz, without unpacking the arrays."""
    headers: dict[str, tuple[tuple[int, ...], np.dtype[Any]]] = {}
    with zipfile.ZipFile(path) as archive:
        for entry in (name for name in archive.namelist() if name.endswith(".npy")):
            with archive.open(entry) as file:
                old = np.lib.format.read_magic(file) == (1, 0)
                read = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
                headers[entry.removesuffix(".npy")] = (shape, dtype)
    return headers


def open_image(path: Path) -> Image.Image:
    """Open an image of one of the supported formats; its pixels are not read yet."""
    return Image.open(path, formats=_FORMATS)


def map_npy(path: Path) -> NDArray[Any]:
    """Map the array of a .npy. Unlike np.load it takes no other kind of file for a pickle or a .npz."""
    return np.lib.format.open_memmap(path, mode="r")


def unpack_npz(path: Path, key: str) -> NDArray[Any]:
    """Read one array of a .npz into memory."""
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[key])


def reason(error: Exception, path: Path) -> str:
    """Why a file could not be read, in one line and without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(rf"['\"]?{re.escape(str(path))}['\"]?", path.name, str(error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__

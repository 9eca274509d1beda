"""Decode: samples of a calibration folder, read batch by batch, as float32[B, *size] tensors with their labels.

Images are decoded as torchvision's `ImageFolder` does: the EXIF orientation is not applied, the first frame of an
animation counts, palette and CMYK become RGB. One difference: 16-bit grey keeps its high byte, as Pillow does for
16-bit colour, because clipping it to 255 (Pillow's own conversion) leaves a white image.

An array in a .npy is mapped, not loaded; a .npz has to be unpacked as a whole: prefer .npy for large sets.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pfpcli import processes
from pfpcli.images.folder import (
    ImageSet,
    SampleFile,
    channels_last,
    check_fits,
    map_npy,
    nothing_left,
    open_image,
    reason,
    unpack_npz,
)
from pfpcli.images.preprocess import Preprocess, shape_text

# Pillow's mode of an image for an input of that many channels.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def batches(
    images: ImageSet,
    indices: Sequence[int] | NDArray[np.int64],
    size: tuple[int, ...],
    preprocess: Preprocess,
    batch: int,
    convert: bool,
    *,
    shared: bool = False,
) -> Iterator[tuple[torch.Tensor, NDArray[np.int64] | None]]:
    """Read samples in the order of `indices`, `batch` at a time.

    A sample that cannot be read is left out of its batch, which is then smaller, and noted in `images.tally`.
    Images of a batch are decoded by as many threads as torch uses.

    Of several processes each decodes batches of its own, and all are told of all: every process goes through the same
    batches in the same order, but those of others are on the "meta" device, where tensors have nothing but a size.

    Args:
        images: the scanned folder.
        indices: which samples.
        size: the model's input without the batch.
        preprocess: what to do to every sample.
        batch: samples per batch.
        convert: as in `check_fits`, which is applied first.
        shared: each process decodes its own batches; otherwise every one decodes all.

    Yields:
        float32[B, *size] and the labels int64[B], or None for an unlabelled set.

    Raises:
        CalibrationError: the set does not fit the model, or not one of the samples could be read.
    """
    check_fits(images, size, preprocess, convert)
    unpack = cache(unpack_npz)

    def read(place: tuple[SampleFile, int]) -> NDArray[np.float32] | Exception:
        source, row = place
        path = images.root / source.name
        try:
            if images.arrays:
                return _read_array(path, source, row, size, preprocess, unpack)
            return _read_image(path, size, preprocess)
        except Exception as error:  # as while scanning; only this sample is lost
            return error

    def decode(chunk: list[int]) -> tuple[list[NDArray[np.float32]], _Told]:
        places = [images.locate(index) for index in chunk]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata does not matter to the pixels
            # Arrays are a copy out of memory: threads would only unpack the same .npz twice.
            results = list(map(read, places) if images.arrays else pool.map(read, places))
        samples, told = [], _Told([], {}, set())
        for index, (source, row), result in zip(chunk, places, results, strict=True):
            if isinstance(result, Exception):
                name = f"{source.name}[{row}]" if source.stacked else source.name
                told.broken[name] = reason(result, images.root / source.name)
                continue
            samples.append(result)
            told.kept.append(index)
            if not images.arrays and source.shape[0] != size[0]:
                told.converted.add(source.name)
        return samples, told

    some = False
    rank, count = (processes.rank(), processes.count()) if shared else (0, 1)
    chunks = [[int(index) for index in indices[first : first + batch]] for first in range(0, len(indices), batch)]
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for first in range(0, len(chunks), count):
            samples, mine = decode(chunks[first + rank] if first + rank < len(chunks) else [])
            for i, told in enumerate(processes.gathered(mine) if shared else [mine]):
                images.tally.broken |= told.broken
                images.tally.converted |= told.converted
                if told.kept:
                    some = True
                    here = torch.from_numpy(np.stack(samples)) if i == rank else None
                    labels = None if images.labels is None else images.labels[told.kept]
                    yield torch.empty(len(told.kept), *size, device="meta") if here is None else here, labels
    if not some and len(indices):
        raise nothing_left(images, len(indices))


class _Told(NamedTuple):
    """What came of a batch: the samples that could be read, why others could not, files whose channels changed."""

    kept: list[int]
    broken: dict[str, str]
    converted: set[str]


def _read_array(
    path: Path,
    source: SampleFile,
    row: int,
    size: tuple[int, ...],
    preprocess: Preprocess,
    unpack: Callable[[Path, str], NDArray[Any]],
) -> NDArray[np.float32]:
    """One sample of a .npy or .npz, float32[*size]; `unpack` gives an array of a .npz."""
    whole = map_npy(path) if source.key is None else unpack(path, source.key)
    sample = whole[row] if source.stacked else whole
    values = preprocess.normalised(np.moveaxis(sample, -1, 0) if channels_last(source.shape, size) else sample)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    return values


def _read_image(path: Path, size: tuple[int, ...], preprocess: Preprocess) -> NDArray[np.float32]:
    """One image, float32[C, H, W]: decoded, resized (Pillow's antialiased bilinear), cropped and normalised."""
    with open_image(path) as stored:
        image = _in_mode(stored, _MODES[size[0]])
    height, width = size[1:]
    new = preprocess.resized((image.height, image.width), (height, width))
    if new != (image.height, image.width):
        if new[0] * new[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"too narrow: its short side at the right size, it would be {shape_text(new)}")
        image = image.resize((new[1], new[0]), Image.Resampling.BILINEAR)
    # Python's rounding, half to even, is torchvision's.
    top, left = round((new[0] - height) / 2), round((new[1] - width) / 2)
    pixels = np.asarray(image)[top : top + height, left : left + width]
    return preprocess.normalised(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow warns about the lost transparency
    return image.convert(mode)

"""Decode: read samples of a calibration folder batch by batch, as float32[B, *size] with their labels.

Images are decoded as torchvision's `ImageFolder` does: the EXIF orientation is not applied, only the first frame of an
animation is read, and palette and CMYK become RGB. One difference: 16-bit grey keeps its high byte, as Pillow does for
16-bit colour, because clipping it to 255 (Pillow's own conversion) leaves a white image.

An array in a .npy is mapped, not loaded. A .npz has to be unpacked as a whole: prefer .npy for large sets.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from pfpcli import processes
from pfpcli.errors import CalibrationError
from pfpcli.images.folder import ImageSet, nothing_left
from pfpcli.images.input_fit import channels_last, check_fits
from pfpcli.images.preprocess import Preprocess, shape_text
from pfpcli.images.sample_files import SampleFile, map_npy, open_image, reason, unpack_npz
from pfpcli.images.truth import read_target

# The number of channels of an input -> Pillow's mode of an image.
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
    targeted: bool = False,
) -> Iterator[tuple[torch.Tensor, NDArray[Any] | None]]:
    """Read samples in the order of `indices`, `batch` at a time.

    A sample that cannot be read is left out of its batch, which gets smaller, and is noted in `images.tally`. The
    images of a batch are decoded in as many threads as torch uses.

    With `shared`, each of several processes decodes every n-th batch. All processes yield the same batches in the same
    order, but a batch of another process is a tensor on the "meta" device, which has a shape and no values.

    Args:
        images: the scanned folder.
        indices: the indices of the samples.
        size: the shape of the model's input without the batch.
        preprocess: the preprocessing of every sample.
        batch: the number of samples per batch.
        convert: as in `check_fits`, which is called first.
        shared: whether the processes share the batches; otherwise each process decodes all batches.
        targeted: whether to read masks and target images, where there are any.

    Yields:
        float32[B, *size] and the labels int64[B], or None for an unlabelled set. With targets, instead of labels the
        masks int64[B, H, W] or the target images float32[B, C, rH, rW].

    Raises:
        CalibrationError: the set does not fit the model, or none of the samples could be read.
    """
    check_fits(images, size, preprocess, convert)
    decoder = _Decoder(images, size, preprocess, cache(unpack_npz))
    rank, count = (processes.rank(), processes.count()) if shared else (0, 1)
    chunks = [[int(index) for index in indices[first : first + batch]] for first in range(0, len(indices), batch)]
    some = False
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for first in range(0, len(chunks), count):
            samples, mine = decoder.decode(chunks[first + rank] if first + rank < len(chunks) else [], pool)
            for i, notes in enumerate(processes.gathered(mine) if shared else [mine]):
                images.tally.broken |= notes.broken
                images.tally.converted |= notes.converted
                if notes.kept:
                    some = True
                    here = torch.from_numpy(np.stack(samples)) if i == rank else None
                    labels: NDArray[Any] | None = None if images.labels is None else images.labels[notes.kept]
                    if targeted and images.targets is not None:
                        labels = _targets(images, notes.kept, size, preprocess) if i == rank else None
                    yield torch.empty(len(notes.kept), *size, device="meta") if here is None else here, labels
    if not some and len(indices):
        raise nothing_left(images, len(indices))


def _targets(images: ImageSet, indices: list[int], size: tuple[int, ...], preprocess: Preprocess) -> NDArray[Any]:
    """The masks or target images of some samples.

    Raises:
        CalibrationError: one cannot be read or does not fit its image.
    """
    assert images.targets is not None
    found: list[NDArray[Any]] = []
    for index in indices:
        source, path = images.sources[index], images.targets[index]
        try:
            found.append(read_target(path, (source.shape[1], source.shape[2]), size, preprocess))
            if found[-1].shape != found[0].shape:
                raise ValueError(f"gives {shape_text(found[-1].shape)}, others give {shape_text(found[0].shape)}")
        except Exception as error:  # Pillow raises any kind of error
            raise CalibrationError(
                f"--labels: {path.name}: {reason(error, path)}", "masks and targets have the size of their image"
            ) from error
    return np.stack(found)


class _Notes(NamedTuple):
    """What a process tells the others about a batch.

    Attributes:
        kept: the indices of the samples that could be read.
        broken, converted: as in `Tally`.
    """

    kept: list[int]
    broken: dict[str, str]
    converted: set[str]


@dataclass(frozen=True)
class _Decoder:
    """Reads samples of a folder.

    Attributes:
        images, size, preprocess: as in `batches`.
        unpack: returns an array of a .npz.
    """

    images: ImageSet
    size: tuple[int, ...]
    preprocess: Preprocess
    unpack: Callable[[Path, str], NDArray[Any]]

    def decode(self, indices: list[int], pool: ThreadPoolExecutor) -> tuple[list[NDArray[np.float32]], _Notes]:
        """The readable samples of a batch, float32[*size] each, and the notes about the batch."""
        images, places = self.images, [self.images.locate(index) for index in indices]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd metadata does not matter to the pixels
            # Arrays are a copy out of memory: threads would only unpack the same .npz twice.
            results = list(map(self._read, places) if images.arrays else pool.map(self._read, places))
        samples, notes = [], _Notes([], {}, set())
        for index, (source, row), result in zip(indices, places, results, strict=True):
            if isinstance(result, Exception):
                name = f"{source.name}[{row}]" if source.stacked else source.name
                notes.broken[name] = reason(result, images.root / source.name)
                continue
            samples.append(result)
            notes.kept.append(index)
            if not images.arrays and source.shape[0] != self.size[0]:
                notes.converted.add(source.name)
        return samples, notes

    def _read(self, place: tuple[SampleFile, int]) -> NDArray[np.float32] | Exception:
        """One sample, or the error that it raised."""
        source, row = place
        path = self.images.root / source.name
        try:
            if self.images.arrays:
                return _read_array(path, source, row, self.size, self.preprocess, self.unpack)
            return _read_image(path, self.size, self.preprocess)
        except Exception as error:  # the parsers raise any kind of error; only this sample is lost
            return error


def _read_array(
    path: Path,
    source: SampleFile,
    row: int,
    size: tuple[int, ...],
    preprocess: Preprocess,
    unpack: Callable[[Path, str], NDArray[Any]],
) -> NDArray[np.float32]:
    """One sample of a .npy or .npz, float32[*size]; `unpack` returns an array of a .npz."""
    whole = map_npy(path) if source.key is None else unpack(path, source.key)
    sample = whole[row] if source.stacked else whole
    values = preprocess.normalised(np.moveaxis(sample, -1, 0) if channels_last(source.shape, size) else sample)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    return values


def _read_image(path: Path, size: tuple[int, ...], preprocess: Preprocess) -> NDArray[np.float32]:
    """One image, float32[C, H, W]: decoded, resized (Pillow's antialiased bilinear), cropped, damaged, normalised."""
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
    if preprocess.corruption is not None:
        pixels = preprocess.corruption.on(pixels, path.name)
    return preprocess.normalised(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0))


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow warns about the lost transparency
    return image.convert(mode)

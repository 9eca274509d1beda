"""The calibration folder: what is in it, whether the model can take it, and how it is split.

A folder of images (.jpg .jpeg .png .bmp .webp) or of arrays (.npy .npz). Only headers are read here, and the labels
that a .npz carries; `decode` reads the samples.

Labels come from class sub-folders exactly as in torchvision's `ImageFolder`: every immediate sub-folder is a class, in
sorted order, and its files are found recursively. A single sub-folder, or files beside them, mean no labels.
A .npz may carry its own labels (`y` or `labels`), which are preferred when every file has them.

Refused, with a `CalibrationError`: nothing to read, images and arrays mixed, and everything `check_fits` lists. Files
that cannot be read are skipped and counted, unless none is left.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pfpcli.errors import CalibrationError
from pfpcli.images.preprocess import PRESETS, Preprocess, count_text, shape_text

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
ARRAY_SUFFIXES = (".npy", ".npz")

# What a file may really hold, whatever its suffix says. Never all of Pillow's formats: EPS would run Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")

# Channels an image has as stored, by Pillow's mode (3 for the rest), what to call them, and those a model may take.
_STORED_CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "LA": 2, "RGBA": 4}
_KINDS = {1: "greyscale", 2: "greyscale with alpha", 3: "colour", 4: "colour with alpha"}
TAKEN_CHANNELS = (1, 3, 4)


@dataclass(frozen=True)
class SampleFile:
    """One file of the folder, as its header describes it.

    Attributes:
        name: path relative to the folder, with forward slashes.
        shape: of one sample: (channels, H, W) of an image as stored, the array's own shape otherwise.
        count: samples in the file.
        floating: the values are floating point.
        stacked: the first axis of the array counts the samples.
        key: the array inside a .npz.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1
    floating: bool = False
    stacked: bool = False
    key: str | None = None


@dataclass
class Tally:
    """What happened to single samples; it grows while batches are read, and reading a sample twice counts once.

    Attributes:
        broken: file (or `file[row]`) to why it could not be read.
        converted: files whose number of channels was changed.
    """

    broken: dict[str, str] = field(default_factory=dict)
    converted: set[str] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A scanned folder.

    Attributes:
        root: the folder.
        name: its last part, for messages.
        arrays: it holds arrays, not images.
        sources: the readable files, in torchvision's order.
        labels: int64[N], or None.
        classes: names of the class sub-folders, or None (labels from a .npz have no names).
        tally: broken and converted samples.
    """

    root: Path
    name: str
    arrays: bool
    sources: tuple[SampleFile, ...]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    tally: Tally

    def __len__(self) -> int:
        """The number of samples."""
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Index of the first sample of every source, and N at the end: int64[len(sources) + 1]."""
        return np.cumsum([0, *(source.count for source in self.sources)], dtype=np.int64)

    def locate(self, index: int) -> tuple[SampleFile, int]:
        """The file a sample is in, and its row there."""
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sources[place], index - int(self._starts[place])

    @property
    def skipped(self) -> int:
        """Files and samples that could not be read, so far."""
        return len(self.tally.broken)

    @property
    def converted(self) -> int:
        """Images read so far whose number of channels was not the model's."""
        return len(self.tally.converted)


def open_folder(path: Path, size: tuple[int, ...] | None = None) -> ImageSet:
    """Scan a folder, headers only.

    Args:
        path: the folder.
        size: shape of one sample, where the model says it. It tells an array of N samples from a single sample;
            without it, four or more axes, or as many labels as the first axis is long, mean N samples.

    Raises:
        CalibrationError: no folder, nothing in it that can be read, images and arrays mixed, or labels in a .npz
            that do not match its samples.
    """
    name = os.path.basename(os.path.abspath(path)) or str(path)
    classes, files = _listing(path, name)
    arrays = files[0][1].suffix.lower() in ARRAY_SUFFIXES
    other = next((file for _, file in files if (file.suffix.lower() in ARRAY_SUFFIXES) != arrays), None)
    if other is not None:
        raise CalibrationError(
            f"{name}: holds both images and arrays ({files[0][1].name}, {other.name})",
            "keep one kind, and move the other to a folder of its own",
        )
    tally = Tally()
    sources: list[SampleFile] = []
    by_folder: list[int] = []  # class of every sample
    own: list[NDArray[np.int64]] = []  # of the files that carry labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow only warns about images of 90 to 180 megapixels; they would take gigabytes as well.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for index, file in files:
            inside = file.relative_to(path).as_posix()
            try:
                if not file.is_file():
                    raise ValueError("not a regular file")  # a pipe would be waited for
                source, carried = _array_header(file, inside, size) if arrays else (_image_header(file, inside), None)
            except CalibrationError:
                raise
            except Exception as error:  # Pillow's and numpy's parsers raise whatever they stumble over
                tally.broken[inside] = reason(error, file)
                continue
            sources.append(source)
            by_folder += [index] * source.count
            own += [] if carried is None else [carried]
    labels = None if classes is None else np.array(by_folder, dtype=np.int64)
    if own and len(own) == len(sources):
        labels, classes = np.concatenate(own), None
    images = ImageSet(path, name, arrays, tuple(sources), labels, classes, tally)
    if not sources:
        raise nothing_left(images, len(files))
    return images


def _listing(path: Path, name: str) -> tuple[tuple[str, ...] | None, list[tuple[int, Path]]]:
    """The classes, if the sub-folders are classes, and every file of interest with its class index."""
    try:
        entries = sorted(entry for entry in os.listdir(path) if not _hidden(entry))
    except FileNotFoundError:
        raise CalibrationError(f"{name}: no such folder", "check the path, or pass another: `--calib DIR`") from None
    except NotADirectoryError:
        raise CalibrationError(
            f"{name}: is a file, expected a folder", "pass the folder that holds it: `--calib DIR`"
        ) from None
    except OSError as error:
        raise CalibrationError(f"{name}: cannot be read ({reason(error, path)})", "check its permissions") from error
    folders = tuple(entry for entry in entries if (path / entry).is_dir())
    direct = any(_wanted(entry) for entry in entries if entry not in folders)
    classes = folders if len(folders) > 1 and not direct else None
    files = [(index, file) for index, folder in enumerate(classes or (".",)) for file in _files(path / folder)]
    if not files:
        raise CalibrationError(
            f"{name}: no images or arrays found",
            f"put {' '.join(IMAGE_SUFFIXES)} or {' '.join(ARRAY_SUFFIXES)} files into it",
        )
    return classes, files


def _files(folder: Path) -> list[Path]:
    """Images and arrays below a folder in torchvision's order, following links but entering every folder once."""
    seen: set[tuple[int, int]] = set()
    visited: list[tuple[str, list[str]]] = []
    for parent, inner, names in os.walk(folder, followlinks=True):
        status = os.stat(parent)
        if (status.st_dev, status.st_ino) in seen:
            inner.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        inner[:] = sorted(name for name in inner if not _hidden(name))
        visited.append((parent, [name for name in names if _wanted(name)]))
    return [Path(parent, name) for parent, names in sorted(visited) for name in sorted(names)]


def _hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _wanted(name: str) -> bool:
    return not _hidden(name) and name.lower().endswith(IMAGE_SUFFIXES + ARRAY_SUFFIXES)


def _image_header(path: Path, name: str) -> SampleFile:
    with open_image(path) as image:
        return SampleFile(name, (_STORED_CHANNELS.get(image.mode, 3), image.height, image.width))


def _array_header(path: Path, name: str, size: tuple[int, ...] | None) -> tuple[SampleFile, NDArray[np.int64] | None]:
    """What a .npy or .npz holds, without loading its samples, and the labels a .npz carries."""
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
        labels = None if label_key is None else unpack_npz(path, label_key)
    if dtype.kind not in "buif":
        raise ValueError(f"holds values of type {dtype}, not numbers")
    if 0 in shape:
        raise ValueError("holds no samples")
    if size is not None and len(shape) - len(size) in (0, 1):
        stacked = len(shape) > len(size)
    else:
        stacked = len(shape) > 3 or (labels is not None and len(shape) > 1 and labels.size == shape[0])
    count, sample = (shape[0], shape[1:]) if stacked else (1, shape)
    if labels is not None and (labels.size != count or labels.dtype.kind not in "iu"):
        raise CalibrationError(
            f"{path.name}: labels have shape {shape_text(labels.shape)} and type {labels.dtype}, "
            f"expected {count} whole numbers, one per sample",
            "save class indices as `y`, or leave the labels out",
        )
    source = SampleFile(name, sample, count, dtype.kind == "f", stacked, key)
    return source, None if labels is None else labels.reshape(-1).astype(np.int64)


def _npz_headers(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and type of every array in a .npz, without unpacking them."""
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
    """The array of a .npy, mapped: what np.load does, but no other kind of file is taken for a pickle or a .npz."""
    return np.lib.format.open_memmap(path, mode="r")


def unpack_npz(path: Path, key: str) -> NDArray[Any]:
    """One array of a .npz, in memory."""
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[key])


def nothing_left(images: ImageSet, count: int) -> CalibrationError:
    """The refusal of a folder whose `count` files or samples are all broken."""
    file, why = next(iter(images.tally.broken.items()))
    noun = "array" if images.arrays else "image"
    found = f"none of the {count} {noun}s could be read (first: {file}: {why})"
    if count == 1:
        found = f"the only {noun} could not be read ({file}: {why})"
    return CalibrationError(f"{images.name}: {found}", f"pass a folder of intact {noun}s: `--calib DIR`")


def reason(error: Exception, path: Path) -> str:
    """Why a file could not be read, in one line and without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(rf"['\"]?{re.escape(str(path))}['\"]?", path.name, str(error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


def common_size(images: ImageSet) -> tuple[int, ...] | None:
    """The shape (C, H, W) all samples share, for a model file that does not say its input; None if they differ.

    Images: C is 1 if all are greyscale, else 3. Arrays: the shape of one sample, channels first; None also where
    channels first and channels last are equally plausible.
    """
    shapes = {source.shape for source in images.sources}
    if not images.arrays:
        sides = {shape[1:] for shape in shapes}
        channels = 1 if all(shape[0] <= 2 for shape in shapes) else 3
        return (channels, *sides.pop()) if len(sides) == 1 else None
    if len(shapes) != 1:
        return None
    shape = shapes.pop()
    if len(shape) == 3 and shape[2] in TAKEN_CHANNELS:
        return None if shape[0] in TAKEN_CHANNELS else (shape[2], shape[0], shape[1])
    return shape


def check_fits(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess, convert: bool) -> None:
    """Refuse, before anything slow, a folder that the model cannot take. It looks at headers only.

    Args:
        images: the scanned folder.
        size: the model's input without the batch, e.g. (C, H, W).
        preprocess: what will be done to the samples.
        convert: images may all be converted to the model's number of channels.

    Raises:
        CalibrationError: images for an input that is not an image, or of another number of channels; arrays of
            another shape; mean and std for another number of channels; a resize smaller than the input; floating
            point arrays with a preset that is meant for 0..255.
    """
    for what, values in (("mean", preprocess.mean), ("std", preprocess.std)):
        if values and len(values) != size[0]:
            raise CalibrationError(
                f"{preprocess.name}: {what} has {count_text(len(values), 'value')}, "
                f"the model's input has {count_text(size[0], 'channel')}",
                f"give `--mean` and `--std` with {count_text(size[0], 'number')} each, or use `--preprocess unit`",
            )
    if images.arrays:
        _check_arrays(images, size, preprocess)
    else:
        _check_channels(images, size, convert)
        _check_resize(images, size, preprocess)


def _check_arrays(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess) -> None:
    expected = shape_text(size)
    for source in images.sources:
        if source.shape != size and not channels_last(source.shape, size):
            found = f"found samples of shape {shape_text(source.shape)}, the model expects {expected}"
            if len(size) == 3 and source.shape == (*size[1:], size[0]):
                found += "; their channels may be first or last"
            raise CalibrationError(f"{source.name}: {found}", f"save the samples as N×{expected}, channels first")
        if source.floating and preprocess.scale != 1 and preprocess.name in PRESETS:
            raise CalibrationError(
                f"{source.name}: holds floating-point values, {preprocess.name} divides by 255",
                "take them as they are with `--preprocess none`, or save 0..255 values as uint8",
            )


def channels_last(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether samples of that shape are H×W×C beyond doubt."""
    return len(size) == 3 and size[0] in TAKEN_CHANNELS and size[0] != size[1] and shape == (*size[1:], size[0])


def _check_channels(images: ImageSet, size: tuple[int, ...], convert: bool) -> None:
    if len(size) != 3 or size[0] not in TAKEN_CHANNELS:
        raise CalibrationError(
            f"{images.name}: holds images, the model's input is {shape_text(size)}",
            f"save the samples as .npy files of shape N×{shape_text(size)}",
        )
    wanted = size[0]
    misfits = [source for source in images.sources if source.shape[0] != wanted]
    expected = f"the model expects {count_text(wanted, 'channel')}"
    if misfits and wanted == 4:
        raise CalibrationError(
            f"{images.name}: {misfits[0].name} has {count_text(misfits[0].shape[0], 'channel')}, {expected}",
            f"use RGBA images only, or .npy files of shape N×{shape_text(size)}",
        )
    if convert or len(misfits) < len(images.sources):
        return
    kinds = {source.shape[0] for source in misfits}
    found = " or ".join(f"{_KINDS[channels]} ({count_text(channels, 'channel')})" for channels in sorted(kinds))
    all_are = f"all {len(misfits)} images are" if len(misfits) > 1 else "the only image is"
    raise CalibrationError(
        f"{images.name}: {all_are} {found}, {expected}", f"to {_remedy(kinds, wanted)}, add --convert"
    )


def _remedy(found: set[int], wanted: int) -> str:
    """What converting means, in words."""
    if wanted == 1:
        return "drop the alpha channel" if found == {2} else "turn them grey"
    steps = {"repeat the grey channel": {1, 2}, "drop the alpha channel": {2, 4}}
    return " and ".join(step for step, needed_by in steps.items() if found & needed_by)


def _check_resize(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess) -> None:
    crop = size[1:]
    for source in images.sources:
        new = preprocess.resized(source.shape[1:], crop)
        if new[0] < crop[0] or new[1] < crop[1]:
            large = max(crop) if len(preprocess.target) == 1 else f"{crop[0]}x{crop[1]}"
            raise CalibrationError(
                f"--resize {preprocess.resize}: {source.name} becomes {shape_text(new)}, "
                f"smaller than the model's input of {shape_text(crop)}",
                f"use `--resize {large}` or more, or leave it out",
            )


def split(
    count: int, labels: NDArray[np.int64] | None, n_score: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint indices, to score on and for the rest, drawn at random but in the proportions of the classes.

    Args:
        count: N, the samples there are.
        labels: int64[N], or None.
        n_score: samples to score on; all N if there are fewer.
        seed: the same seed gives the same split.

    Returns:
        int64[min(n_score, N)] and int64[M]; M is 0 if scoring takes them all. Any prefix of either, and any part of
        it, is as close to the proportions of the classes as its length allows.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        # The k-th of n samples of a class stands at (k + ½) / n, so classes advance together along the order.
        position = np.empty(count)
        for label in np.unique(labels):
            members = np.flatnonzero(labels[order] == label)
            position[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(position, kind="stable")]
    return order[:n_score], order[n_score:]

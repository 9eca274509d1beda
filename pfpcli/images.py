"""The calibration folder: what is in it, whether the model can take it, and batches of it as tensors.

In: a folder of images (.jpg .jpeg .png .bmp .webp) or of arrays (.npy .npz). Out: float32[B, *size] batches with
their labels. Scanning reads headers only; pixels are read batch by batch, and an array in a .npy is mapped, not loaded
(a .npz has to be unpacked as a whole: prefer .npy for large sets).

Labels come from class sub-folders exactly as in torchvision's `ImageFolder`: every immediate sub-folder is a class, in
sorted order, and its files are found recursively. A single sub-folder, or files beside them, mean no labels.
A .npz may carry its own labels (`y` or `labels`), which are preferred when every file has them.

Images are decoded as `ImageFolder` does: the EXIF orientation is not applied, the first frame of an animation counts,
palette and CMYK become RGB. One difference: 16-bit grey keeps its high byte, as Pillow does for 16-bit colour, because
clipping it to 255 (Pillow's own conversion) leaves a white image.

Refused, with a `CalibrationError`: nothing to read, images and arrays mixed, and everything `check_fits` lists. Files
that cannot be read are skipped and counted, unless none is left.
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from pfpcli.errors import CalibrationError
from pfpcli.settings import Settings

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
ARRAY_SUFFIXES = (".npy", ".npz")

# What a file may really hold, whatever its suffix says. Never all of Pillow's formats: EPS would run Ghostscript.
_FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "GIF")

_KINDS = {
    1: "greyscale (1 channel)",
    2: "greyscale with alpha (2 channels)",
    3: "colour (3 channels)",
    4: "colour with alpha (4 channels)",
}
_STORED_CHANNELS = {"1": 1, "L": 1, "I": 1, "I;16": 1, "I;16B": 1, "LA": 2, "La": 2, "RGBA": 4, "RGBa": 4, "PA": 4}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


# ------------------------------------------------------------------------------------------------ preprocessing


@dataclass(frozen=True)
class Preprocess:
    """What is done to every sample, in order: decode, channels, resize, crop, scale, `(x - mean) / std`.

    Attributes:
        name: "imagenet", "unit", "raw255", "none" or the name of a TOML file.
        scale: multiplies the stored values, e.g. 1/255.
        mean, std: one number per channel, in units of the scaled values; empty means 0 and 1.
        resize: "S" (short side, then centre crop) or "HxW" (stretch, then centre crop); None is the smallest size
            that covers the model's input: its short side, for the usual square input.
        arrays: the samples come from arrays, which are never resized.
    """

    name: str
    scale: float
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    resize: str | None = None
    arrays: bool = False

    def describe(self, size: tuple[int, ...] | None = None) -> str:
        """One line for the terminal; with `size`, the model's input, it names the numbers.

        `imagenet: /255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, short side 32, centre crop 32×32`
        """
        factor = "/255" if self.scale == 1 / 255 else f"×{self.scale:g}"
        if self.scale == 1:
            factor = "values as stored" if self.arrays else "0..255 as stored"
        parts = [factor]
        parts += [f"mean {' '.join(f'{m:g}' for m in self.mean)}"] if self.mean else []
        parts += [f"std {' '.join(f'{s:g}' for s in self.std)}"] if self.std else []
        if not self.arrays:
            parts += self._describe_resize(size[1:] if size is not None and len(size) == 3 else None)
        return f"{self.name}: {', '.join(parts)}"

    def _describe_resize(self, crop: tuple[int, ...] | None) -> list[str]:
        target = _parse_resize(self.resize) if self.resize else ()
        if len(target) == 2:
            first = f"stretched to {_by(target)}"
        elif target:
            first = f"short side {target[0]}"
        elif crop is None:
            return ["short side of the input, centre crop"]
        else:
            first = f"short side {crop[0]}" if crop[0] == crop[1] else f"scaled to cover {_by(crop)}"
        return [first] if target == crop else [first, f"centre crop {_by(crop)}" if crop else "centre crop"]

    def recorded(self) -> dict[str, Any]:
        """The preprocessing as plain values for the record."""
        return {
            "name": self.name,
            "scale": self.scale,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": self.resize,
        }


PRESETS: dict[str, Preprocess] = {
    "imagenet": Preprocess("imagenet", 1 / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "unit": Preprocess("unit", 1 / 255),
    "raw255": Preprocess("raw255", 1.0),
    "none": Preprocess("none", 1.0),
}


def preprocessing(settings: Settings, *, arrays: bool) -> Preprocess:
    """The preset or TOML file of `--preprocess`, with `--mean`, `--std` and `--resize` on top.

    Args:
        settings: `preprocess` None means "imagenet" for images and "none" for arrays.
        arrays: the folder holds arrays.

    Raises:
        CalibrationError: an unknown preset, a file that does not parse, or a value that makes no sense.
    """
    name = settings.preprocess or ("none" if arrays else "imagenet")
    if name in PRESETS:
        chosen = replace(PRESETS[name], arrays=arrays)
    elif Path(name).suffix.lower() == ".toml" or Path(name).is_file():
        chosen = _from_toml(Path(name), arrays)
    else:
        close = difflib.get_close_matches(name.lower(), PRESETS, n=1)
        raise CalibrationError(
            f"--preprocess {Path(name).name}: expected {', '.join(PRESETS)} or a .toml file",
            f"did you mean `--preprocess {close[0]}`?" if close else "choose one, for example `--preprocess unit`",
        )
    changes = {key: getattr(settings, key) for key in ("mean", "std", "resize")}
    chosen = replace(chosen, **{key: value for key, value in changes.items() if value is not None})
    if not all(math.isfinite(number) for number in chosen.mean):
        raise CalibrationError("--mean: expected finite numbers, one per channel", "for example `--mean 0.5,0.5,0.5`")
    if chosen.resize is not None:
        _parse_resize(chosen.resize)
        if arrays:
            raise CalibrationError(
                f"--resize {chosen.resize}: arrays are not resized",
                "leave it out, and save the arrays in the size the model expects",
            )
    return chosen


def _from_toml(path: Path, arrays: bool) -> Preprocess:
    """`scale` (a number or "1/255"), `mean`, `std` and `resize` of a TOML file; what is missing is as in "unit".

    For arrays, what is missing is as in "none".
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CalibrationError(f"{path.name}: no such file", "check the path given to `--preprocess`") from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CalibrationError(
            f"{path.name}: not a TOML file that can be read ({_reason(error, path)})",
            'write one key per line, for example `scale = "1/255"`',
        ) from error
    chosen = replace(PRESETS["none" if arrays else "unit"], name=path.name, arrays=arrays)
    for key, value in table.items():
        if key not in _TOML_KEYS:
            close = difflib.get_close_matches(key, _TOML_KEYS, n=1)
            raise CalibrationError(
                f"{path.name}: unknown key {key}, expected {', '.join(_TOML_KEYS)}",
                f"did you mean `{close[0]}`?" if close else "remove it",
            )
        example, read = _TOML_KEYS[key]
        try:
            chosen = replace(chosen, **{key: read(value)})
        except (TypeError, ValueError):
            raise CalibrationError(
                f"{path.name}: {key} cannot be {value!r}", f"write for example `{example}`"
            ) from None
    return chosen


def _positive(value: object) -> float:
    number = 1 / 255 if value == "1/255" else _number(value)
    if number <= 0:
        raise ValueError(value)
    return number


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(value)
    return float(value)


def _per_channel(read: Callable[[object], float]) -> Callable[[Any], tuple[float, ...]]:
    return lambda value: tuple(read(v) for v in (value if isinstance(value, list) else [value]))


def _resize_text(value: object) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError(value)
    return str(value)


_TOML_KEYS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "scale": ('scale = "1/255"', _positive),
    "mean": ("mean = [0.485, 0.456, 0.406]", _per_channel(_number)),
    "std": ("std = [0.229, 0.224, 0.225]", _per_channel(_positive)),
    "resize": ('resize = "256"', _resize_text),
}


def _parse_resize(text: str) -> tuple[int, ...]:
    """`256` as (256,), `256x320` as (256, 320), in pixels, height first."""
    match = re.fullmatch(r"\s*([1-9]\d*)(?:\s*[xX×]\s*([1-9]\d*))?\s*", text)
    if match is None:
        raise CalibrationError(
            f"--resize {text}: expected S (short side) or HxW (height and width), in pixels",
            "for example `--resize 256` or `--resize 256x320`",
        )
    return tuple(int(part) for part in match.groups() if part is not None)


# ------------------------------------------------------------------------------------------------------ scanning


@dataclass(frozen=True)
class Source:
    """One file of the folder, as its header describes it.

    Attributes:
        name: path relative to the folder, with forward slashes.
        shape: of one sample: (channels, H, W) of an image as stored, the array's own shape otherwise.
        count: samples in the file.
        floating: the values are floating point.
        stacked: the first axis of the array counts the samples.
        key: the array inside a .npz.
        label: index of the class sub-folder.
    """

    name: str
    shape: tuple[int, ...]
    count: int = 1
    floating: bool = False
    stacked: bool = False
    key: str | None = None
    label: int = 0


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
    sources: tuple[Source, ...]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    tally: Tally = field(default_factory=Tally)

    def __len__(self) -> int:
        """The number of samples."""
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """Index of the first sample of every source, and N at the end: int64[len(sources) + 1]."""
        return np.cumsum([0, *(source.count for source in self.sources)], dtype=np.int64)

    def locate(self, index: int) -> tuple[Source, int]:
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

    @property
    def noun(self) -> str:
        """What the folder holds, for messages."""
        return "arrays" if self.arrays else "images"


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
    arrays = _is_array(files[0][1])
    other = next((file for _, file in files if _is_array(file) != arrays), None)
    if other is not None:
        raise CalibrationError(
            f"{name}: holds both images and arrays ({files[0][1].name}, {other.name})",
            "keep one kind, and move the other to a folder of its own",
        )
    tally = Tally()
    sources: list[Source] = []
    given: list[NDArray[np.int64] | None] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow only warns about images of 90 to 180 megapixels; they would take gigabytes as well.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for label, file in files:
            inside = file.relative_to(path).as_posix()
            try:
                if not file.is_file():
                    raise ValueError("not a regular file")  # a pipe would be waited for
                source, own_labels = _array_header(file, size) if arrays else (_image_header(file), None)
            except CalibrationError:
                raise
            except Exception as error:  # Pillow's and numpy's parsers raise whatever they stumble over
                tally.broken[inside] = _reason(error, file)
                continue
            sources.append(replace(source, name=inside, label=label))
            given.append(own_labels)
    images = ImageSet(path, name, arrays, tuple(sources), *_labels(sources, given, classes), tally)
    if not sources:
        raise _nothing_left(images, len(files))
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
        raise CalibrationError(f"{name}: cannot be read ({_reason(error, path)})", "check its permissions") from error
    folders = tuple(entry for entry in entries if (path / entry).is_dir())
    direct = any(_wanted(entry) for entry in entries if entry not in folders)
    classes = folders if len(folders) > 1 and not direct else None
    if classes is None:
        files = [(0, file) for file in _files(path)]
    else:
        files = [(label, file) for label, folder in enumerate(classes) for file in _files(path / folder)]
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


def _is_array(file: Path) -> bool:
    return file.suffix.lower() in ARRAY_SUFFIXES


def _open_image(path: Path) -> Image.Image:
    return Image.open(path, formats=_FORMATS)


def _image_header(path: Path) -> Source:
    with _open_image(path) as image:
        return Source(path.name, (_STORED_CHANNELS.get(image.mode, 3), image.height, image.width))


def _array_header(path: Path, size: tuple[int, ...] | None) -> tuple[Source, NDArray[np.int64] | None]:
    """What a .npy or .npz holds, without loading its samples, and the labels a .npz carries."""
    key, labels = None, None
    if path.suffix.lower() == ".npy":
        mapped = _load_npy(path)
        shape, dtype = mapped.shape, mapped.dtype
    else:
        headers = _npz_headers(path)
        label_key = next((k for k in ("y", "labels") if k in headers), None)
        samples = [k for k in headers if k != label_key]
        key = next((k for k in ("x", "images") if k in headers), samples[0] if samples else None)
        if key is None:
            raise ValueError("no array of samples in it")
        shape, dtype = headers[key]
        labels = None if label_key is None else _load_npz(path, label_key)
    if dtype.kind not in "buif":
        raise ValueError(f"holds values of type {dtype}, not numbers")
    if 0 in shape:
        raise ValueError("holds no samples")
    stacked = _is_stacked(shape, size, labels)
    count, sample = (shape[0], shape[1:]) if stacked else (1, shape)
    if labels is not None and (labels.size != count or labels.dtype.kind not in "iu"):
        raise CalibrationError(
            f"{path.name}: labels have shape {_by(labels.shape)} and type {labels.dtype}, "
            f"expected {count} whole numbers, one per sample",
            "save class indices as `y`, or leave the labels out",
        )
    source = Source(path.name, sample, count, dtype.kind == "f", stacked, key)
    return source, None if labels is None else labels.reshape(-1).astype(np.int64)


def _is_stacked(shape: tuple[int, ...], size: tuple[int, ...] | None, labels: NDArray[Any] | None) -> bool:
    """Whether the first axis counts samples."""
    if size is not None and len(shape) in (len(size), len(size) + 1):
        return len(shape) > len(size)
    return len(shape) > 3 or (labels is not None and len(shape) > 1 and labels.size == shape[0])


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


def _load_npy(path: Path) -> NDArray[Any]:
    # What np.load does for a mapped array, but a file of another kind is never taken for a pickle or a .npz.
    return np.lib.format.open_memmap(path, mode="r")


def _load_npz(path: Path, key: str) -> NDArray[Any]:
    with np.load(path, allow_pickle=False) as archive:
        return np.asarray(archive[key])


def _labels(
    sources: list[Source], given: list[NDArray[np.int64] | None], classes: tuple[str, ...] | None
) -> tuple[NDArray[np.int64] | None, tuple[str, ...] | None]:
    """Labels int64[N] and class names: from the arrays if each has some, else from the sub-folders."""
    own = [labels for labels in given if labels is not None]
    if own and len(own) == len(sources):
        return np.concatenate(own), None
    if classes is None:
        return None, None
    counts = [source.count for source in sources]
    return np.repeat(np.array([source.label for source in sources], dtype=np.int64), counts), classes


def _nothing_left(images: ImageSet, count: int) -> CalibrationError:
    file, why = next(iter(images.tally.broken.items()))
    noun = images.noun
    found = f"none of the {count} {noun} could be read (first: {file}: {why})"
    if count == 1:
        found = f"the only {noun[:-1]} could not be read ({file}: {why})"
    return CalibrationError(f"{images.name}: {found}", f"pass a folder of intact {noun}: `--calib DIR`")


def _reason(error: Exception, path: Path) -> str:
    """Why a file could not be read, in one line and without its path."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image file"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = re.sub(rf"['\"]?{re.escape(str(path))}['\"]?", path.name, str(error)).strip()
    return text.splitlines()[0].rstrip(".") if text else type(error).__name__


# ------------------------------------------------------------------------------------------------- does it fit?


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
    if len(shape) == 3 and shape[-1] in (1, 3, 4):
        return None if shape[0] in (1, 3, 4) else (shape[2], shape[0], shape[1])
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
                f"{preprocess.name}: {what} has {_many(len(values), 'value')}, "
                f"the model's input has {_many(size[0], 'channel')}",
                f"give `--mean` and `--std` with {_many(size[0], 'number')} each, or use `--preprocess unit`",
            )
    if images.arrays:
        _check_arrays(images, size, preprocess)
    else:
        _check_channels(images, size, convert)
        _check_resize(images, size, preprocess)


def _check_arrays(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess) -> None:
    for source in images.sources:
        if source.shape != size and not _channels_last(source.shape, size):
            found = f"found samples of shape {_by(source.shape)}, the model expects {_by(size)}"
            if len(size) == 3 and source.shape == (*size[1:], size[0]):
                found += "; their channels may be first or last"
            raise CalibrationError(f"{source.name}: {found}", f"save the samples as N×{_by(size)}, channels first")
        if source.floating and preprocess.scale != 1 and preprocess.name in PRESETS:
            raise CalibrationError(
                f"{source.name}: holds floating-point values, {preprocess.name} divides by 255",
                "take them as they are with `--preprocess none`, or save 0..255 values as uint8",
            )


def _channels_last(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether samples of that shape are H×W×C beyond doubt."""
    if shape == size or len(size) != 3 or size[0] not in (1, 3, 4):
        return False
    return shape == (*size[1:], size[0]) and shape[0] != size[0]


def _check_channels(images: ImageSet, size: tuple[int, ...], convert: bool) -> None:
    if len(size) != 3 or size[0] not in _MODES:
        raise CalibrationError(
            f"{images.name}: holds images, the model's input is {_by(size)}",
            f"save the samples as .npy files of shape N×{_by(size)}",
        )
    wanted = size[0]
    misfits = [source for source in images.sources if source.shape[0] != wanted]
    expected = f"the model expects {_many(wanted, 'channel')}"
    if misfits and wanted == 4:
        raise CalibrationError(
            f"{images.name}: {misfits[0].name} has {_many(misfits[0].shape[0], 'channel')}, {expected}",
            f"use RGBA images only, or .npy files of shape N×{_by(size)}",
        )
    if convert or len(misfits) < len(images.sources):
        return
    kinds = {source.shape[0] for source in misfits}
    found = " or ".join(_KINDS[channels] for channels in sorted(kinds))
    all_are = f"all {len(misfits)} images are" if len(misfits) > 1 else "the only image is"
    raise CalibrationError(
        f"{images.name}: {all_are} {found}, {expected}", f"to {_remedy(kinds, wanted)}, add --convert"
    )


def _remedy(found: set[int], wanted: int) -> str:
    """What converting means, in words."""
    if wanted == 1:
        return "drop the alpha channel" if found == {2} else "turn them grey"
    if found == {4}:
        return "drop the alpha channel"
    return "repeat the grey channel" if found == {1} else "repeat the grey channel and drop the alpha channel"


def _check_resize(images: ImageSet, size: tuple[int, ...], preprocess: Preprocess) -> None:
    height, width = size[1:]
    for source in images.sources:
        new = _resized(source.shape[1:], (height, width), preprocess.resize)
        if new[0] < height or new[1] < width:
            large = max(height, width) if len(_parse_resize(str(preprocess.resize))) == 1 else f"{height}x{width}"
            raise CalibrationError(
                f"--resize {preprocess.resize}: {source.name} becomes {_by(new)}, "
                f"smaller than the model's input of {height}×{width}",
                f"use `--resize {large}` or more, or leave it out",
            )


def _resized(stored: tuple[int, ...], crop: tuple[int, int], resize: str | None) -> tuple[int, int]:
    """Height and width an image is resized to before the crop, in pixels, rounded as torchvision's `Resize` does."""
    height, width = stored
    target = _parse_resize(resize) if resize is not None else (min(crop),)
    if len(target) == 2:
        return target[0], target[1]
    short = min(height, width)
    new = (target[0] * height // short, target[0] * width // short)
    if resize is None and new[0] < crop[0]:
        return crop[0], crop[0] * width // height
    if resize is None and new[1] < crop[1]:
        return crop[1] * height // width, crop[1]
    return new


def _by(shape: Sequence[int]) -> str:
    return "×".join(str(side) for side in shape) or "a single number"


def _many(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# -------------------------------------------------------------------------------------------------------- reading


def batches(
    images: ImageSet,
    indices: Sequence[int] | NDArray[np.int64],
    size: tuple[int, ...],
    preprocess: Preprocess,
    batch: int,
    convert: bool,
) -> Iterator[tuple[torch.Tensor, NDArray[np.int64] | None]]:
    """Read samples in the order of `indices`, `batch` at a time.

    A sample that cannot be read is left out of its batch, which is then smaller, and noted in `images.tally`.
    Images of a batch are decoded by as many threads as torch uses.

    Args:
        images: the scanned folder.
        indices: which samples.
        size: the model's input without the batch.
        preprocess: what to do to every sample.
        batch: samples per batch.
        convert: as in `check_fits`, which is applied first.

    Yields:
        float32[B, *size] and the labels int64[B], or None for an unlabelled set.

    Raises:
        CalibrationError: the set does not fit the model, or not one of the samples could be read.
    """
    check_fits(images, size, preprocess, convert)
    unpacked: dict[str, NDArray[Any]] = {}

    def read(place: tuple[Source, int]) -> NDArray[np.float32] | Exception:
        source, row = place
        try:
            if images.arrays:
                return _read_array(images.root, source, row, size, preprocess, unpacked)
            return _read_image(images.root / source.name, size, preprocess)
        except Exception as error:  # as while scanning; only this sample is lost
            return error

    some = False
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for start in range(0, len(indices), batch):
            chunk = np.asarray(indices[start : start + batch], dtype=np.int64)
            places = [images.locate(int(index)) for index in chunk]
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd metadata does not matter to the pixels
                # Arrays are a copy out of memory: threads would only unpack the same .npz twice.
                results = list(map(read, places) if images.arrays else pool.map(read, places))
            samples = [result for result in results if not isinstance(result, Exception)]
            _count(images, places, results, size[0])
            if samples:
                some = True
                kept = chunk[[not isinstance(result, Exception) for result in results]]
                yield torch.from_numpy(np.stack(samples)), None if images.labels is None else images.labels[kept]
    if not some and len(indices):
        raise _nothing_left(images, len(indices))


def _count(
    images: ImageSet,
    places: list[tuple[Source, int]],
    results: list[NDArray[np.float32] | Exception],
    channels: int,
) -> None:
    """Note the samples that could not be read, and the images that were converted, in the tally."""
    for (source, row), result in zip(places, results, strict=True):
        if isinstance(result, Exception):
            name = f"{source.name}[{row}]" if source.stacked else source.name
            images.tally.broken[name] = _reason(result, images.root / source.name)
        elif not images.arrays and source.shape[0] != channels:
            images.tally.converted.add(source.name)


def _read_array(
    root: Path,
    source: Source,
    row: int,
    size: tuple[int, ...],
    preprocess: Preprocess,
    unpacked: dict[str, NDArray[Any]],
) -> NDArray[np.float32]:
    """One sample of a .npy or .npz, float32[*size]; `unpacked` remembers what came out of a .npz."""
    path = root / source.name
    if source.key is None:
        whole = _load_npy(path)
    else:
        if source.name not in unpacked:
            unpacked[source.name] = _load_npz(path, source.key)
        whole = unpacked[source.name]
    sample = whole[row] if source.stacked else whole
    values = _normalised(np.moveaxis(sample, -1, 0) if _channels_last(source.shape, size) else sample, preprocess)
    if not np.isfinite(values).all():
        raise ValueError("holds values that are not finite")
    return values


def _read_image(path: Path, size: tuple[int, ...], preprocess: Preprocess) -> NDArray[np.float32]:
    """One image, float32[C, H, W]: decoded, resized (Pillow's antialiased bilinear), cropped and normalised."""
    with _open_image(path) as stored:
        image = _in_mode(stored, _MODES[size[0]])
    height, width = size[1:]
    new = _resized((image.height, image.width), (height, width), preprocess.resize)
    if new != (image.height, image.width):
        if new[0] * new[1] > (Image.MAX_IMAGE_PIXELS or math.inf):
            raise ValueError(f"too narrow: its short side at the right size, it would be {_by(new)}")
        image = image.resize((new[1], new[0]), Image.Resampling.BILINEAR)
    # Python's rounding, half to even, is torchvision's.
    top, left = round((new[0] - height) / 2), round((new[1] - width) / 2)
    pixels = np.asarray(image)[top : top + height, left : left + width]
    return _normalised(pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0), preprocess)


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray(np.clip(np.asarray(image) >> 8, 0, 255).astype(np.uint8))
    if image.mode == "PA" or "transparency" in image.info:
        image = image.convert("RGBA")  # the same colours; straight to RGB, Pillow warns about the lost transparency
    return image.convert(mode)


def _normalised(values: NDArray[Any], preprocess: Preprocess) -> NDArray[np.float32]:
    """`(scale · values - mean) / std` per channel, the first axis; float32 of the same shape.

    Scaled in double precision: then /255 of a byte is the float32 nearest to it, as in torchvision's `ToTensor`.
    """
    with np.errstate(over="ignore"):  # an overflow is found as a value that is not finite
        scaled = np.multiply(values, preprocess.scale, dtype=np.float64) if preprocess.scale != 1 else values
        out = np.array(scaled, dtype=np.float32, order="C")
    per_channel = (-1, *(1,) * (out.ndim - 1))
    if preprocess.mean:
        out -= np.array(preprocess.mean, dtype=np.float32).reshape(per_channel)
    if preprocess.std:
        out /= np.array(preprocess.std, dtype=np.float32).reshape(per_channel)
    return out


def split(
    count: int,
    labels: NDArray[np.int64] | None,
    n_score: int,
    seed: int,
    n_eval: int | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Disjoint indices to score on and to evaluate on, drawn at random but in the proportions of the classes.

    Args:
        count: N, the samples there are.
        labels: int64[N], or None.
        n_score: samples to score on; all N if there are fewer.
        seed: the same seed gives the same split.
        n_eval: at most so many of the rest; None takes the rest.

    Returns:
        int64[min(n_score, N)] and int64[M]; M is 0 if scoring takes them all. Any prefix of either is as close to
        the proportions of the classes as its length allows.
    """
    order = np.random.default_rng(seed).permutation(count)
    if labels is not None:
        # The k-th of n samples of a class stands at (k + ½) / n, so classes advance together along the order.
        position = np.empty(count)
        for label in np.unique(labels):
            members = np.flatnonzero(labels[order] == label)
            position[members] = (np.arange(len(members)) + 0.5) / len(members)
        order = order[np.argsort(position, kind="stable")]
    stop = None if n_eval is None else n_score + n_eval
    return order[:n_score], order[n_score:stop]

"""Folder: scan a folder of images (.jpg .jpeg .png .bmp .webp) or of arrays (.npy .npz).

Only headers are read here, and the labels of a .npz; `decode` reads the samples.

Labels come from class sub-folders exactly as in torchvision's `ImageFolder`: every immediate sub-folder is a class, in
sorted order, and its files are found recursively. A single sub-folder, or files beside the sub-folders, mean no labels.
A .npz may carry labels (`y` or `labels`). If every file carries labels, these are used.

A folder without readable files and a folder with both images and arrays are refused. A file that cannot be read is
skipped and counted.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pfpcli.errors import CalibrationError
from pfpcli.images.sample_files import (
    ARRAY_SUFFIXES,
    IMAGE_SUFFIXES,
    SampleFile,
    array_header,
    image_header,
    reason,
)


@dataclass
class Tally:
    """The broken and the converted samples. It grows while batches are read; a sample that is read twice counts once.

    Attributes:
        broken: file, or `file[row]` -> why it could not be read.
        converted: the files whose number of channels was changed.
    """

    broken: dict[str, str] = field(default_factory=dict)
    converted: set[str] = field(default_factory=set)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """A scanned folder.

    Attributes:
        root: the folder.
        name: the last part of its path, for messages.
        arrays: whether it holds arrays, not images.
        sources: the readable files, in torchvision's order.
        labels: int64[N], or None.
        classes: the names of the class sub-folders, or None; labels of a .npz have no names.
        tally: the broken and the converted samples.
        targets: the mask or the target image of each file, or None.
        digests: file -> sha256 of its content, for the files that `digest` has read.
    """

    root: Path
    name: str
    arrays: bool
    sources: tuple[SampleFile, ...]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...] | None
    tally: Tally
    targets: tuple[Path, ...] | None = None
    digests: dict[str, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        """The number of samples."""
        return int(self._starts[-1])

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The index of the first sample of every source, and N at the end: int64[len(sources) + 1]."""
        return np.cumsum([0, *(source.count for source in self.sources)], dtype=np.int64)

    def locate(self, index: int) -> tuple[SampleFile, int]:
        """The file of a sample, and its row in the file."""
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.sources[place], index - int(self._starts[place])

    def digest(self, name: str) -> bytes:
        """The sha256 of the content of a file, which is read once; b"" if it has been deleted since the scan."""
        if name not in self.digests:
            try:
                self.digests[name] = hashlib.sha256((self.root / name).read_bytes()).digest()
            except FileNotFoundError:
                return b""
        return self.digests[name]

    @property
    def sha256(self) -> str:
        """The hash of the folder in hex: of the path of each readable file inside of the folder, and of its content."""
        names, whole = [source.name for source in self.sources], hashlib.sha256()
        with ThreadPoolExecutor() as pool:  # reading and hashing leave Python's lock
            for name, found in zip(names, pool.map(self.digest, names), strict=True):
                whole.update(hashlib.sha256(os.fsencode(name)).digest() + found)
        return whole.hexdigest()

    @property
    def skipped(self) -> int:
        """The number of files and samples that could not be read so far."""
        return len(self.tally.broken)

    @property
    def converted(self) -> int:
        """The number of images so far that were converted to the model's number of channels."""
        return len(self.tally.converted)


def open_folder(path: Path, size: tuple[int, ...] | None = None) -> ImageSet:
    """Scan a folder. Only headers are read.

    Args:
        path: the folder.
        size: the shape of one sample, if the model says it. It tells an array of N samples from a single sample.
            Without it, an array holds N samples if it has four or more axes or N labels.

    Raises:
        CalibrationError: the folder is missing, holds no readable file, or holds both images and arrays; or the labels
            of a .npz do not match its samples.
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
    headers, broken = _headers(path, [file for _, file in files], arrays=arrays, size=size)
    read = [(index, *header) for (index, _), header in zip(files, headers, strict=True) if header is not None]
    labels = None
    if classes is not None:
        labels = np.array([index for index, source, _ in read for _ in range(source.count)], dtype=np.int64)
    carried = [each for _, _, each in read if each is not None]
    if carried and len(carried) == len(read):
        labels, classes = np.concatenate(carried), None
    images = ImageSet(path, name, arrays, tuple(source for _, source, _ in read), labels, classes, Tally(broken))
    if not read:
        raise nothing_left(images, len(files))
    return images


#: A file and the labels it carries; None for a file that cannot be read.
_Header = tuple[SampleFile, NDArray[np.int64] | None] | None


def _headers(
    path: Path, files: Sequence[Path], *, arrays: bool, size: tuple[int, ...] | None
) -> tuple[list[_Header], dict[str, str]]:
    """The header of each file of a folder, and the broken files as in `Tally`."""
    headers: list[_Header] = []
    broken: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Pillow only warns about images of 90 to 180 megapixels; they would take gigabytes as well.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for file in files:
            inside = file.relative_to(path).as_posix()
            header: _Header = None
            try:
                if not file.is_file():
                    raise ValueError("not a regular file")  # reading a pipe would block
                header = array_header(file, inside, size) if arrays else (image_header(file, inside), None)
            except CalibrationError:
                raise
            except Exception as error:  # the parsers of Pillow and numpy raise any kind of error
                broken[inside] = reason(error, file)
            headers.append(header)
    return headers, broken


def _listing(path: Path, name: str) -> tuple[tuple[str, ...] | None, list[tuple[int, Path]]]:
    """The classes, or None if the sub-folders are no classes; and every sample file with the index of its class."""
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
    """The sample files below a folder, in torchvision's order. Links are followed, but each folder is entered once."""
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


def nothing_left(images: ImageSet, count: int) -> CalibrationError:
    """The error for a folder whose `count` files or samples are all broken."""
    file, why = next(iter(images.tally.broken.items()))
    noun = "array" if images.arrays else "image"
    found = f"none of the {count} {noun}s could be read (first: {file}: {why})"
    if count == 1:
        found = f"the only {noun} could not be read ({file}: {why})"
    return CalibrationError(f"{images.name}: {found}", f"pass a folder of intact {noun}s: `--calib DIR`")

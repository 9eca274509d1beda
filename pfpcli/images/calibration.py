"""Calibration: which images score the channels, which ones judge the result, and how they reach the network."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.errors import CalibrationError, InputError
from pfpcli.images.decode import batches
from pfpcli.images.folder import TAKEN_CHANNELS, ImageSet, check_fits, common_size, open_folder, split
from pfpcli.images.preprocess import Preprocess, PreprocessSettings, preprocessing

#: Held-out images that judge the result, at most, where no folder is named for it; and at most a third of them.
HELD_OUT = 1000
#: Images that say whether a recovery has helped, at most; and at most a sixth of those that do not judge.
CHECKED = 256
#: Numbers in one batch of inputs.
_BATCH = 2_000_000

Batches = Iterator[tuple[Tensor, NDArray[np.int64] | None]]


@dataclass(frozen=True)
class Calibration:
    """A folder of calibration images and, if named, one of evaluation images.

    Attributes:
        images: the calibration images.
        judges: the evaluation images; None holds out a part of `images`.
        size: of one input, without the batch.
        preprocess: what is done to each image.
        convert: convert images whose number of channels is not the model's.
        seed: of the choice of images.
    """

    images: ImageSet
    judges: ImageSet | None
    size: tuple[int, ...]
    preprocess: Preprocess
    convert: bool
    seed: int

    def divide(self, needed: int, given: int | None) -> Division:
        """Choose the images that score, that recovery goes by, and that judge: the last are never among the others.

        Args:
            needed: images the guarantee asks for.
            given: images the user asked for, or None.
        """
        count = len(self.images)
        # as the authors do: at most half of the images score, unless the user says otherwise
        wanted = min(given or needed, count)
        if given is None and self.judges is None:
            wanted = min(wanted, max(1, count // 2))
        scored, rest = split(count, self.images.labels, wanted, self.seed)
        judging = 0 if self.judges is not None else min(HELD_OUT, len(rest), max(1, count // 3))
        rest, judged = rest[: len(rest) - judging], rest[len(rest) - judging :]
        pool = np.concatenate([scored, rest])
        checking = min(CHECKED, len(pool) // 6)
        fitted, checked = pool[: len(pool) - checking], pool[len(pool) - checking :]
        if self.judges is not None:
            judges, judged, source = self.judges, np.arange(len(self.judges)), f"images of {self.judges.name}"
        elif judging:
            judges, source = self.images, "held-out images"
        else:
            judges, judged, source = self.images, scored, "calibration images (optimistic)"
        return Division(self, scored, fitted, checked, judges, judged, source)

    def batches(self, batch: int | None = None, indices: NDArray[np.int64] | None = None) -> Batches:
        """Calibration images and their labels; batch: images at a time, None for a size that fits."""
        return self.of(self.images, np.arange(len(self.images)) if indices is None else indices, batch)

    def of(self, images: ImageSet, indices: NDArray[np.int64], batch: int | None, *, shared: bool = True) -> Batches:
        """Some images of a set, as the network takes them, and their labels; shared: among processes, see `decode`."""
        size = batch or max(1, min(64, _BATCH // int(np.prod(self.size))))
        found = batches(images, indices, self.size, self.preprocess, size, self.convert, shared=shared)
        # a network with a fixed batch size cannot take the last images if they do not fill a batch
        return (pair for pair in found if batch is None or len(pair[0]) == batch or len(indices) < batch)


@dataclass(frozen=True)
class Division:
    """Which images do what.

    Attributes:
        calibration: where they come from.
        scored: indices into its images: those that score.
        fitted: those that recovery fits the cut network to; the ones that score are among them.
        checked: those that say whether a recovery has helped; no recovery is fitted to them.
        judges, judged: the images that judge, and which of them.
        source: what the report calls the judging images.
    """

    calibration: Calibration
    scored: NDArray[np.int64]
    fitted: NDArray[np.int64]
    checked: NDArray[np.int64]
    judges: ImageSet
    judged: NDArray[np.int64]
    source: str

    def scoring(self, batch: int | None = None) -> Batches:
        """The scoring images and their labels; batch: images at a time, None for a size that fits."""
        return self.calibration.batches(batch, self.scored)

    def fitting(self, batch: int | None = None, most: int | None = None) -> Batches:
        """The images that recovery is fitted to, and their labels; most: no more than so many."""
        return self.calibration.batches(batch, self.fitted[:most])

    def checking(self, batch: int | None = None) -> Batches:
        """The images that say whether a recovery has helped, and their labels."""
        return self.calibration.batches(batch, self.checked)

    def judging(self, batch: int | None = None, most: int | None = None) -> Batches:
        """The judging images and their labels; most: no more than so many."""
        return self.calibration.of(self.judges, self.judged[:most], batch)

    def samples(self, count: int) -> Tensor:
        """A few judging images: float[count, ...], repeated if there are not as many."""
        images = next(self.calibration.of(self.judges, self.judged[:count], count, shared=False))[0]
        return images[[i % len(images) for i in range(count)]]

    def recorded(self) -> dict[str, Any]:
        """For the record."""
        sets = {id(s): s for s in (self.calibration.images, self.judges)}.values()
        preprocess = self.calibration.preprocess
        return {
            "folder": self.calibration.images.name,
            "images": len(self.calibration.images),
            "scored": len(self.scored),
            "evaluated": len(self.judged),
            "fitted": len(self.fitted),
            "checked": len(self.checked),
            "preprocess": {**preprocess.recorded(), "describe": preprocess.describe(self.calibration.size)},
            "skipped": sum(s.skipped for s in sets),
            "converted": sum(s.converted for s in sets),
        }


class CalibrationSettings(PreprocessSettings, Protocol):
    """What a user may say about the calibration images."""

    @property
    def calib(self) -> Path:
        """The folder of calibration images."""

    @property
    def eval(self) -> Path | None:
        """A folder of images that judge; None holds out a part of `calib`."""

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """The size of one input, without the batch."""

    @property
    def convert(self) -> bool:
        """Whether images with other channels than the network's are converted."""

    @property
    def seed(self) -> int:
        """The seed of the choice of images."""


class Network(Protocol):
    """What is asked of the network that the images are for."""

    @property
    def name(self) -> str:
        """The name of its file."""

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """The size of one input, without the batch; None where the file does not say."""

    def takes(self, size: tuple[int, ...]) -> bool:
        """Whether it runs on an input of that size."""


def open_calibration(settings: CalibrationSettings, model: Network) -> Calibration:
    """Open the folders and check that they fit the model, before anything slow begins.

    Args:
        settings: all of them.
        model: the network; its input size counts where nobody gave one, and the images' where it has none either.

    Raises:
        CalibrationError: the images are missing, broken or do not fit.
        InputError: nobody says how large an input is.
    """
    size = settings.input_size or model.input_size
    images = open_folder(settings.calib, size)
    if size is None:
        size = _size_by_images(images, model)
        images = open_folder(settings.calib, size)
    preprocess = preprocessing(settings, arrays=images.arrays)
    judges = open_folder(settings.eval, size) if settings.eval else None
    for each in (images, judges):
        if each is not None:
            check_fits(each, size, preprocess, settings.convert)
    if judges is not None:
        _check_disjoint(images, judges)
    return Calibration(images, judges, size, preprocess, settings.convert, settings.seed)


def _check_disjoint(images: ImageSet, judges: ImageSet) -> None:
    """Refuse to judge on images that may have chosen the channels, under whatever path they are found."""
    seen, judging = ({_identity(each.root / source.name) for source in each.sources} for each in (images, judges))
    if seen & judging:
        raise CalibrationError(
            f"--eval {judges.name}: {len(seen & judging)} of its {len(judging)} files are in --calib {images.name} too",
            f"pass other images, or leave --eval out: a part of {images.name} is held out then",
        )


def _identity(file: Path) -> tuple[int, int]:
    status = file.stat()
    return status.st_dev, status.st_ino


def _size_by_images(images: ImageSet, model: Network) -> tuple[int, ...]:
    """The images' own size; what they do not tell is how many channels the network takes, so that is tried."""
    size = common_size(images)
    if size is None:
        raise InputError(
            f"{model.name}: the file does not say how large its input is, and the images in {images.name} are of "
            "different sizes",
            "say it with --input-size C,H,W, e.g. `--input-size 3,224,224`",
        )
    if images.arrays:
        return size
    sizes = [(channels, *size[1:]) for channels in (size[0], *TAKEN_CHANNELS)]
    return next(filter(model.takes, sizes), size)

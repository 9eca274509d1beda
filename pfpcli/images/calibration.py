"""Calibration: the images of a run, and their division by purpose.

Scoring images score the channels. Fitting images are what a recovery fits the cut network to. Checking images are no
fitting images; they tell whether a recovery has helped. Each scoring image is one of the two. Judging images measure
the result; they are held-out images or come from a folder of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli.errors import CalibrationError, InputError
from pfpcli.images.class_names import number_by_names, read_class_names
from pfpcli.images.corruptions import Corruption
from pfpcli.images.decode import batches
from pfpcli.images.folder import ImageSet, open_folder
from pfpcli.images.input_fit import TAKEN_CHANNELS, check_fits, common_size
from pfpcli.images.preprocess import Preprocess, PreprocessSettings, preprocessing
from pfpcli.images.split import split
from pfpcli.images.truth import with_truth
from pfpcli.limits import check_input

#: The largest number of held-out images. They are also at most a third of all images.
HELD_OUT = 1000
#: The largest number of checking images. They are also at most a quarter of the images that are not held out.
CHECKED = 256
#: Judging images are halved if there are at least this many: one half chooses a network, the other confirms it.
HALVED = 100
#: The largest number of values in one batch of inputs: on a CPU the values of a layer should fit into the cache.
_BATCH = 600_000
_BATCH_ELSEWHERE = 8_000_000

#: Pairs of images float32[B, *size] and labels int64[B], or None; of judging images masks or target images as well.
Batches = Iterator[tuple[Tensor, NDArray[Any] | None]]


@dataclass(frozen=True)
class Calibration:
    """A folder of calibration images and, optionally, a folder of judging images.

    Attributes:
        images: the calibration images.
        judges: the folder of judging images; None holds out a part of `images`.
        size: the shape of one input, without the batch.
        preprocess: the preprocessing of each image.
        convert: whether to convert images with another number of channels than the model's.
        seed: the seed of the division.
        device: the type of the device that the batches are for.
    """

    images: ImageSet
    judges: ImageSet | None
    size: tuple[int, ...]
    preprocess: Preprocess
    convert: bool
    seed: int
    device: str = "cpu"

    def divide(self, needed: int, given: int | None) -> Division:
        """Divide the images by purpose. No judging image has another purpose, if there are enough images.

        Args:
            needed: the number of scoring images that the error bound asks for.
            given: the number of scoring images that the user asked for, or None.
        """
        count = len(self.images)
        # as the authors of PFP do: at most half of the images are scoring images, unless the user wants more
        wanted = min(given or needed, count)
        if given is None and self.judges is None:
            wanted = min(wanted, max(1, count // 2))
        scored, rest = split(count, self.images.labels, wanted, self.seed)
        judging = 0 if self.judges is not None else min(HELD_OUT, len(rest), max(1, count // 3))
        rest, judged = rest[: len(rest) - judging], rest[len(rest) - judging :]
        pool = np.concatenate([scored, rest])
        checking = min(CHECKED, len(pool) // 4)
        fitted, checked = pool[: len(pool) - checking], pool[len(pool) - checking :]
        if self.judges is not None:
            judges, judged, source = self.judges, np.arange(len(self.judges)), f"images of {self.judges.name}"
        elif judging:
            judges, source = self.images, "held-out images"
        else:
            judges, judged, source = self.images, scored, "calibration images (optimistic)"
        return Division(self, scored, fitted, checked, judges, judged, source)

    def batches(self, batch: int | None = None, indices: NDArray[np.int64] | None = None) -> Batches:
        """Some calibration images, all without indices; batch: the batch size, None for one that fits into memory."""
        return self.of(self.images, np.arange(len(self.images)) if indices is None else indices, batch)

    def of(
        self,
        images: ImageSet,
        indices: NDArray[np.int64],
        batch: int | None,
        *,
        shared: bool = True,
        targeted: bool = False,
    ) -> Batches:
        """Some images of a folder, preprocessed; shared and targeted: as in `decode.batches`."""
        values = _BATCH if self.device == "cpu" else _BATCH_ELSEWHERE
        size = batch or max(1, min(64, values // int(np.prod(self.size))))
        found = batches(
            images, indices, self.size, self.preprocess, size, self.convert, shared=shared, targeted=targeted
        )
        # a network with a fixed batch size cannot take a last batch that is smaller
        return (pair for pair in found if batch is None or len(pair[0]) == batch or len(indices) < batch)


@dataclass(frozen=True)
class Division:
    """The images of a run by purpose.

    Attributes:
        calibration: the calibration images.
        scored: int64[N], the indices of the scoring images in `calibration.images`.
        fitted: int64[N], the indices of the fitting images.
        checked: int64[N], the indices of the checking images; they are not fitting images.
        judges: the folder of the judging images.
        judged: int64[N], the indices of the judging images in `judges`.
        source: the name of the judging images in the report.
    """

    calibration: Calibration
    scored: NDArray[np.int64]
    fitted: NDArray[np.int64]
    checked: NDArray[np.int64]
    judges: ImageSet
    judged: NDArray[np.int64]
    source: str

    def scoring(self, batch: int | None = None) -> Batches:
        """The scoring images; batch: the batch size, None for one that fits into memory."""
        return self.calibration.batches(batch, self.scored)

    def fitting(self, batch: int | None = None, most: int | None = None) -> Batches:
        """The fitting images, at most `most`; batch as in `scoring`."""
        return self.calibration.batches(batch, self.fitted[:most])

    def checking(self, batch: int | None = None, most: int | None = None) -> Batches:
        """The checking images, at most `most`; batch as in `scoring`."""
        return self.calibration.batches(batch, self.checked[:most])

    def judging(self, batch: int | None = None, most: int | None = None) -> Batches:
        """The judging images, at most `most`, with their masks or target images; batch as in `scoring`."""
        return self.calibration.of(self.judges, self.judged[:most], batch, targeted=True)

    def judged_names(self) -> list[str]:
        """The files of the judging images in the order of `judging`, once all of them have been read."""
        places = [self.judges.locate(int(index)) for index in self.judged]
        names = [f"{source.name}[{row}]" if source.stacked else source.name for source, row in places]
        return [name for name in names if name not in self.judges.tally.broken]

    def damaged(self, corruption: Corruption | None) -> Division:
        """The same images with damaged pixels; None for whole ones."""
        preprocess = replace(self.calibration.preprocess, corruption=corruption)
        return replace(self, calibration=replace(self.calibration, preprocess=preprocess))

    def thinned(self, most: int) -> Division:
        """The same with at most `most` judging images, spread over all of them: a folder is in the order of classes."""
        if len(self.judged) <= most:
            return self
        return replace(self, judged=self.judged[np.arange(most) * len(self.judged) // most])

    def samples(self, count: int) -> Tensor:
        """The first judging images that can be read, float[count, ...]; repeated if there are fewer."""
        one_by_one = self.calibration.of(self.judges, self.judged, 1, shared=False)
        images = torch.cat([image for image, _ in itertools.islice(one_by_one, count)])
        return images[[i % len(images) for i in range(count)]]

    def halves(self) -> tuple[Division, Division | None]:
        """The division with the judging images that choose a network, and the one with those that confirm it.

        With fewer than `HALVED` judging images, or where no image is held out, all of them choose and none confirms.
        """
        chosen_by = f"{self.source} that chose the network"
        if len(self.judged) < HALVED or (self.judges is self.calibration.images and self.judged is self.scored):
            return replace(self, source=chosen_by), None
        labels = None if self.judges.labels is None else self.judges.labels[self.judged]
        ends = split(len(self.judged), labels, len(self.judged) // 2, self.calibration.seed)
        choosing, confirming = (self.judged[np.sort(end)] for end in ends)
        return replace(self, judged=choosing, source=chosen_by), replace(self, judged=confirming)

    def recorded(self) -> dict[str, Any]:
        """The images and the preprocessing as plain values for the record."""
        sets = {id(s): s for s in (self.calibration.images, self.judges)}.values()
        preprocess = self.calibration.preprocess
        return {
            "folder": self.calibration.images.name,
            "sha256": self.calibration.images.sha256,
            "judging_sha256": self.judges.sha256,
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
    """The settings of the calibration images."""

    @property
    def calib(self) -> Path:
        """The folder of calibration images."""

    @property
    def eval(self) -> Path | None:
        """The folder of judging images; None holds out a part of `calib`."""

    @property
    def classes(self) -> Path | None:
        """The file of the class names, in the order of the outputs; None numbers the class folders in sorted order."""

    @property
    def labels(self) -> Path | None:
        """A CSV of labels, or a folder of masks or target images; None takes the labels from the folders."""

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """The shape of one input, without the batch; None takes it from the model or the images."""

    @property
    def convert(self) -> bool:
        """Whether to convert images with another number of channels than the network's."""

    @property
    def seed(self) -> int:
        """The seed of the division of the images."""


class Network(Protocol):
    """The network that the images are for."""

    @property
    def name(self) -> str:
        """The name of its file."""

    @property
    def input_size(self) -> tuple[int, ...] | None:
        """The shape of one input, without the batch; None if the file does not say it."""

    def takes(self, size: tuple[int, ...]) -> bool:
        """Whether the network runs on an input of this shape."""


def open_calibration(settings: CalibrationSettings, model: Network, device: str = "cpu") -> Calibration:
    """Open the folders and check that their images fit the network. Only headers are read.

    Args:
        settings: the folders and the preprocessing.
        model: the network. The input size comes from the settings, else from the network, else from the images.
        device: the type of the device that computes.

    Raises:
        CalibrationError: the images are missing, broken or do not fit, or a class folder has no known name.
        InputError: the input size is unknown, because the images have different sizes; or the names are no list.
    """
    size = settings.input_size or model.input_size
    images = open_folder(settings.calib, size)
    if size is None:
        size = _size_by_images(images, model)
        images = open_folder(settings.calib, size)
    check_input(model.name, (1, *size))
    preprocess = preprocessing(settings, arrays=images.arrays)
    judges = open_folder(settings.eval, size) if settings.eval else None
    names = None if settings.classes is None else read_class_names(settings.classes)
    if names is not None:
        images = number_by_names(images, names)
        judges = None if judges is None else number_by_names(judges, names)
    if settings.labels is not None:
        images, judges = _with_labels(images, judges, settings.labels, names)
    for each in (images, judges):
        if each is not None:
            check_fits(each, size, preprocess, settings.convert)
    if judges is not None:
        _check_disjoint(images, judges)
    return Calibration(images, judges, size, preprocess, settings.convert, settings.seed, device)


def check_damageable(calibration: Calibration) -> None:
    """Refuse judging images that cannot be damaged (`corruptions`).

    Raises:
        InputError: they are arrays, which have no 8-bit pixels.
    """
    images = calibration.judges or calibration.images
    if images.arrays:
        raise InputError(
            f"--robustness: {images.name} holds arrays; expected images, since 8-bit pixels are damaged before the "
            "preprocessing",
            "give images with --calib and --eval, or leave --robustness out",
        )


def _with_labels(
    images: ImageSet, judges: ImageSet | None, path: Path, names: tuple[str, ...] | None
) -> tuple[ImageSet, ImageSet | None]:
    """The folders with the labels that lie beside them; at least one of them has labels there."""
    found = [None if each is None else with_truth(each, path, names) for each in (images, judges)]
    if found[0] is None and found[1] is None:
        raise CalibrationError(
            f"--labels {path.name}: names no image of {(judges or images).name}",
            "rows are `file,label`; masks and target images have the stem of their image",
        )
    return found[0] or images, found[1] or judges


def _check_disjoint(images: ImageSet, judges: ImageSet) -> None:
    """Check that no file is both a calibration image and a judging image, even under different paths."""
    seen, judging = (set(_identities(each)) for each in (images, judges))
    if seen & judging:
        raise CalibrationError(
            f"--eval {judges.name}: {len(seen & judging)} of its {len(judging)} files are in --calib {images.name} too",
            f"pass other images, or leave --eval out: a part of {images.name} is held out then",
        )


def _identities(images: ImageSet) -> Iterator[tuple[int, int]]:
    """What tells the files of a folder from all others, whatever their paths; a file deleted meanwhile has nothing."""
    for source in images.sources:
        with suppress(FileNotFoundError):
            status = (images.root / source.name).stat()
            yield status.st_dev, status.st_ino


def _size_by_images(images: ImageSet, model: Network) -> tuple[int, ...]:
    """The common size of the images. The network is run to find the number of channels that it takes."""
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

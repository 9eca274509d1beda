"""Recovery task: the input of every recovery method."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pfpcli.cutting.cut import Cut
from pfpcli.images.calibration import Division

#: `progress(done, total, unit)`, called often.
Progress = Callable[[int, int, str], None]


def silent(done: int, total: int, unit: str) -> None:
    """Ignore the progress."""


@dataclass(frozen=True)
class TrainingLimits:
    """How long a method that trains may train.

    Attributes:
        epochs: the largest number of passes over the images; None for no limit. One of the two limits is needed.
        minutes: the longest time; None for no limit.
        seed: the seed of the order of the images and of their random changes.
        state: the file that holds interrupted training; None to keep nothing.
    """

    epochs: int | None
    minutes: float | None
    seed: int
    state: Path | None = None


@dataclass(frozen=True)
class RecoveryTask:
    """A cut network to recover, and the means to recover it.

    Attributes:
        cut: the cut network and its slicing; a method changes the tensors of `cut.graph` in place.
        division: the images: `fitting` for the method, `checking` for the check afterwards.
        device: the device to compute on.
        limits: for the methods that train.
        progress: receives the progress of the method.
        remarks: a method adds what the user should know of how it went.
    """

    cut: Cut
    division: Division
    device: torch.device
    limits: TrainingLimits
    progress: Progress = silent
    remarks: list[str] = field(default_factory=list)

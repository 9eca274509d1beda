"""Settings of `pfp finetune`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.settings.calibration import CalibrationSettings
from pfpcli.settings.checks import check_training_limits, most_epochs


@dataclass(frozen=True, kw_only=True)
class FinetuneSettings(CalibrationSettings):
    """How to train the network of a run with labels.

    `model` is the exported program of the run, or its ONNX file where the run was given one; `calib` has the class
    folders.

    Attributes:
        run: folder of the run.
        teacher: the model that the run was made of; its outputs are learnt too. None learns from the labels alone.
        distill_weight: share of the teacher in the loss, 0 to 1; None means a half where there is a teacher.
        epochs: largest number of epochs; None means 30 where `minutes` is None too.
        minutes: longest time.
        lr: highest learning rate.
        augment: mirror and shift the images at random.
        out: run folder; None means <run>-finetuned.
    """

    run: Path
    teacher: Path | None = None
    distill_weight: float | None = None
    epochs: int | None = None
    minutes: float | None = None
    lr: float = 0.02
    augment: bool = True
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check the values of this class, after those of the images."""
        super().__post_init__()
        check_training_limits(self.epochs, self.minutes)
        if not (isfinite(self.lr) and self.lr > 0):
            raise InputError(f"--lr {self.lr:g}: expected a number above 0")
        if self.distill_weight is not None and not 0 <= self.distill_weight <= 1:
            raise InputError(f"--distill-weight {self.distill_weight:g}: expected a number from 0 to 1")
        if self.distill_weight is not None and self.teacher is None:
            raise InputError(
                f"--distill-weight {self.distill_weight:g}: there is nothing to learn from but the labels",
                "name the original with `--teacher MODEL`",
            )

    @property
    def weight(self) -> float:
        """The share of the teacher in the loss."""
        if self.teacher is None:
            return 0.0
        return 0.5 if self.distill_weight is None else self.distill_weight

    @property
    def most_epochs(self) -> int | None:
        """The largest number of epochs; None where only time limits training."""
        return most_epochs(self.epochs, self.minutes)

    @property
    def folder(self) -> Path:
        """The run folder to write."""
        return self.out or self.run.with_name(f"{self.run.name}-finetuned")

"""Settings of the calibration images and of the machine."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.settings.network import NetworkSettings


@dataclass(frozen=True, kw_only=True)
class CalibrationSettings(NetworkSettings):
    """A network with calibration images.

    Attributes:
        calib: folder of calibration images (or arrays).
        eval: folder of images to report quality on; None holds out a part of `calib`.
        classes: file with one class name in each line, in the order of the outputs; None numbers the class folders in
            sorted order.
        labels: CSV with a row `file,label` for each image, or folder with a mask or a target image of the same stem.
        samples: number of calibration images used for scoring; None takes |S| from the formula.
        preprocess: preset name or path of a TOML file; None chooses "imagenet" for images and "none" for arrays.
        mean, std: per channel, override the preset.
        resize: "S" (short side, then centre crop) or "HxW" (stretch); None means the short side of the input.
        convert: convert images whose number of channels is not the network's.
        device: "auto", "cpu", "cuda" or "mps".
        threads: CPU threads for torch and onnxruntime; None uses all cores.
        seed: seed of every random choice.
    """

    calib: Path
    eval: Path | None = None
    classes: Path | None = None
    labels: Path | None = None
    samples: int | None = None
    preprocess: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    resize: str | None = None
    convert: bool = False
    device: str = "auto"
    threads: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values of this class, after those of the network."""
        super().__post_init__()
        if not 0 <= self.seed < 2**64:
            raise InputError(f"--seed {self.seed}: expected a whole number from 0 up, of at most 64 bits")
        if self.std is not None and not all(isfinite(s) and s > 0 for s in self.std):
            raise InputError("--std: expected numbers above 0, one per channel")

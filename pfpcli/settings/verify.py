"""Settings of `pfp verify`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.settings.calibration import CalibrationSettings
from pfpcli.settings.checks import check_count

#: The most images that are compared on, and the number of random inputs, where the user names no number.
IMAGES, RANDOM = 256, 16


@dataclass(frozen=True, kw_only=True)
class VerifySettings(CalibrationSettings):
    """Which networks to compare, on what, and how far apart they may be.

    `model` is the first network: a file or a run folder.

    Attributes:
        other: the second network; None compares the files of the run folder `model` with each other.
        original: the checkpoint that the run `model` pruned; it is cut and masked by the plan of the run.
        calib: folder of images to compare on; None makes random inputs.
        inputs: number of images or of random inputs; None takes at most 256 images, or 16 random inputs.
        atol, rtol: two numbers may differ by atol + rtol · the largest number of their output.
    """

    other: Path | None = None
    original: Path | None = None
    calib: Path | None = None  # type: ignore[assignment]  # here, images are not needed
    inputs: int | None = None
    atol: float = 1e-6
    rtol: float = 1e-4

    def __post_init__(self) -> None:
        """Check the values of this class, after those of the images."""
        super().__post_init__()
        check_count("--inputs", self.inputs)
        for name in ("atol", "rtol"):
            value = getattr(self, name)
            if not (isfinite(value) and value >= 0):
                raise InputError(f"--{name} {value:g}: expected a number from 0 up", f"e.g. `--{name} 1e-5`")
        if self.original is not None and self.other is not None:
            raise InputError(
                f"--original {self.original.name}: is for one run folder, and there are two networks",
                "leave the second network or --original out",
            )

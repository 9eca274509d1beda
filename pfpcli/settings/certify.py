"""Settings of `pfp certify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pfpcli.settings.calibration import CalibrationSettings


@dataclass(frozen=True, kw_only=True)
class CertifySettings(CalibrationSettings):
    """Which run to check; `calib` has the images to check it on.

    Attributes:
        run: folder of the run.
    """

    run: Path

"""Settings of scoring."""

from __future__ import annotations

from dataclasses import dataclass

from pfpcli.settings.calibration import CalibrationSettings
from pfpcli.settings.checks import check_delta


@dataclass(frozen=True, kw_only=True)
class ScoringSettings(CalibrationSettings):
    """How channels are scored, whatever the criterion.

    Attributes:
        reduce: sensitivity over kernel positions, "sum" (the share of the whole channel) or "max" (torchprune).
        delta: probability with which an error bound may fail; the size of the calibration set follows from it too.
        cache: read scores from the cache, and write them there.
    """

    reduce: str = "sum"
    delta: float = 1e-16
    cache: bool = True

    def __post_init__(self) -> None:
        """Check the values of this class, after those of the images."""
        super().__post_init__()
        check_delta(self.delta)


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(ScoringSettings):
    """Settings of `pfp score`.

    Attributes:
        criterion: one of `pfpcli.scoring.criteria.CRITERIA`; "pfp" is the sensitivity of Provable Filter Pruning, and
            "auto" the best of several for each group.
    """

    criterion: str = "auto"

"""Settings of `pfp sparsify`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pfpcli.records.folders import RUNS
from pfpcli.scoring.criteria import WEIGHT_CRITERIA
from pfpcli.settings.calibration import CalibrationSettings
from pfpcli.settings.checks import check_delta, check_keep
from pfpcli.settings.network import CHOICES


@dataclass(frozen=True, kw_only=True)
class SparsifySettings(CalibrationSettings):
    """Which single weights to remove, and how many.

    Attributes:
        criterion: one of `pfpcli.scoring.criteria.WEIGHT_CRITERIA`; "sipp" is the sensitivity of SiPP.
        delta: probability with which an error bound may fail; the size of the calibration set follows from it too.
        keep: fraction of the parameters that stay nonzero, 0 < keep <= 1.
        cut_dead: remove the channels that no layer reads any more.
        out: run folder; None means pfp-runs/<model>-sparse<R>.
    """

    criterion: str = "sipp"
    delta: float = 1e-16
    keep: float = 0.5
    cut_dead: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check the values of this class, after those of the images."""
        super().__post_init__()
        check_delta(self.delta)
        check_keep("--keep", self.keep)

    @classmethod
    def choices(cls) -> dict[str, tuple[str, ...]]:
        """Setting -> the values it may have; weights have criteria of their own."""
        return CHOICES | {"criterion": tuple(WEIGHT_CRITERIA)}

    @property
    def folder(self) -> Path:
        """The folder to write."""
        return self.out or RUNS / self.name

    @property
    def name(self) -> str:
        """The name of the run: the model and the budget."""
        return f"{self.model.stem}-sparse{self.keep:.2f}"

"""Settings of `pfp compare-criteria`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.planning.allocations import TRIED
from pfpcli.records.folders import RUNS
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings.checks import check_allocate, check_keep
from pfpcli.settings.network import CHOICES
from pfpcli.settings.scoring import ScoringSettings


@dataclass(frozen=True, kw_only=True)
class CompareCriteriaSettings(ScoringSettings):
    """Which criteria to compare, and at which budgets.

    Attributes:
        criteria: some of `pfpcli.scoring.criteria.CRITERIA`.
        keeps: fractions of `keep_of` to keep, each 0 < keep <= 1.
        keep_of: what `keeps` measure, "params" or "macs": no file is written whose size or latency could be measured.
        allocate: as in `CompressSettings`.
        out: folder; None means pfp-runs/<model>-criteria.
    """

    criteria: tuple[str, ...] = tuple(CRITERIA)
    keeps: tuple[float, ...] = (0.8, 0.6, 0.4)
    keep_of: str = "macs"
    allocate: str = TRIED[0]
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check the values of this class, after those of scoring."""
        super().__post_init__()
        for name in self.criteria:
            if name not in CRITERIA:
                raise InputError(f"--criteria {name}: expected some of {', '.join(CRITERIA)}")
            check_allocate(self.allocate, CRITERIA[name].bounds_error, name)
        for keep in self.keeps:
            check_keep("--keeps", keep)

    @classmethod
    def choices(cls) -> dict[str, tuple[str, ...]]:
        """Setting -> the values it may have."""
        return CHOICES | {"keep_of": ("params", "macs")}

    @property
    def folder(self) -> Path:
        """The folder to write."""
        return self.out or RUNS / self.name

    @property
    def name(self) -> str:
        """The name of the folder."""
        return f"{self.model.stem}-criteria"

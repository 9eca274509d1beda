"""Settings of `pfp sweep`."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pfpcli.errors import InputError
from pfpcli.settings.checks import check_keep
from pfpcli.settings.compress import CompressSettings


@dataclass(frozen=True, kw_only=True)
class SweepSettings(CompressSettings):
    """Which budgets to try.

    Attributes:
        keeps: fractions of `keep_of` to keep, each 0 < keep <= 1. `keep`, `epsilon` and `plan` are not used.
        out: folder of the run folders; None means pfp-runs/<model>-sweep.
    """

    keeps: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the values of this class, after those of compress."""
        super().__post_init__()
        for keep in self.keeps:
            check_keep("--keep", keep)
        if not self.keeps or len(set(self.keeps)) < len(self.keeps):
            found = ",".join(f"{keep:g}" for keep in self.keeps) or "nothing"
            raise InputError(f"--keep {found}: expected different fractions", "for example `--keep 0.8,0.6,0.4`")

    def at(self, keep: float) -> CompressSettings:
        """Return the settings of `pfp compress` for one of the fractions."""
        shared = {field.name: getattr(self, field.name) for field in fields(CompressSettings)}
        return CompressSettings(**{**shared, "keep": keep, "out": None})

    @property
    def name(self) -> str:
        """The name of the folder."""
        return f"{self.model.stem}-sweep"

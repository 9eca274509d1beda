"""Settings of `pfp compress`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pfpcli.errors import InputError
from pfpcli.planning.allocations import BEST
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings.checks import check_allocate, check_keep, check_training_limits
from pfpcli.settings.scoring import ScoreSettings


@dataclass(frozen=True, kw_only=True)
class CompressSettings(ScoreSettings):
    """What to compress, and how far.

    Attributes:
        keep: fraction of `keep_of` to keep, 0 < keep <= 1.
        keep_of: what `keep` measures, "params" or "macs".
        epsilon: relative error that no layer may exceed; the smallest network within it is made, and `keep` is unused.
        allocate: how many channels each group keeps, one of `pfpcli.planning.allocations.ALLOCATIONS`, or "best"
            for the best of several, measured.
        steps: number of cuts; the network is recovered and scored again between them.
        recover: recovery methods after the cut, some of `pfpcli.recovery.methods.RECOVERIES`, in order.
        epochs: largest number of epochs of "distill"; None means 30 where `minutes` is None too.
        minutes: longest time of "distill"; the steps share it.
        multiple_of: kept channels are rounded up to a multiple of this; None takes 8 for groups of 64 channels or more
            and 4 from 16 on, less in small networks and where the budget could not be met.
        min_channels: smallest number of channels a group keeps.
        metric: "FILE.py:FUNCTION", a metric of the user: it gets the path of an ONNX file and of the folder of judging
            images, and returns a number, higher is better.
        max_drop: how far the metric, or the quality where there is no metric, may fall; a run beyond it has failed.
        out: run folder; None means pfp-runs/<model>-keep<R> (or -epsilon<E>).
    """

    keep: float = 0.5
    keep_of: str = "params"
    epsilon: float | None = None
    allocate: str = BEST
    steps: int = 1
    recover: tuple[str, ...] = ("lsq",)
    epochs: int | None = None
    minutes: float | None = None
    multiple_of: int | None = None
    min_channels: int = 1
    metric: str | None = None
    max_drop: float | None = None
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check the values of this class, after those of scoring."""
        super().__post_init__()
        check_keep("--keep", self.keep)
        bounds = CRITERIA[self.criterion].bounds_error
        self._check_epsilon(bounds)
        check_allocate(self.allocate, bounds, self.criterion)
        if self.max_drop is not None and not 0 <= self.max_drop < float("inf"):
            raise InputError(f"--max-drop {self.max_drop:g}: expected a number from 0 up", "e.g. `--max-drop 1%`")
        for method in self.recover:
            if method not in RECOVERIES:
                raise InputError(f"--recover {method}: expected none or some of {', '.join(RECOVERIES)}")
        check_training_limits(self.epochs, self.minutes)
        given = "--epochs" if self.epochs is not None else "--minutes"
        if "distill" not in self.recover and (self.epochs, self.minutes) != (None, None):
            raise InputError(f"{given}: nothing is trained", "use `--recover lsq,distill` with it")

    def _check_epsilon(self, bounds: bool) -> None:
        """Check the error bound; bounds: whether the criterion bounds errors."""
        if self.epsilon is None:
            return
        if not (isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"--epsilon {self.epsilon:g}: expected a relative error above 0", "e.g. `--epsilon 0.1`")
        if self.steps > 1:
            raise InputError(
                f"--epsilon {self.epsilon:g} --steps {self.steps}: an error is asked for of one network",
                "use --keep with --steps",
            )
        if not bounds:
            raise InputError(
                f"--epsilon {self.epsilon:g}: criterion {self.criterion} bounds no error",
                "use --criterion pfp with it, or --keep instead of it",
            )

    @property
    def name(self) -> str:
        """The name of the run: the model and the budget."""
        asked = f"keep{self.keep:.2f}" if self.epsilon is None else f"epsilon{self.epsilon:g}"
        return f"{self.model.stem}-{asked}"

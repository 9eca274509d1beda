"""Settings of `pfp compress`."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from pfpcli.amounts import COUNTED, Amount, parse_amount
from pfpcli.errors import InputError
from pfpcli.planning.allocations import ALLOCATIONS, BEST
from pfpcli.records.folders import PRECISIONS, RUNS
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings.checks import KEEP, check_allocate, check_keep, check_training_limits
from pfpcli.settings.max_drop import MaxDrop
from pfpcli.settings.scoring import ScoreSettings


@dataclass(frozen=True, kw_only=True)
class CompressSettings(ScoreSettings):
    """What to compress, and how far.

    Attributes:
        keep: fraction of `keep_of` to keep, 0 < keep <= 1; None means 0.5 where nothing else says how much.
        keep_of: what `keep` measures, one of `pfpcli.amounts.COUNTED`.
        params, macs, size, latency: instead of `keep`, what the network has at most: a fraction of the original's, or
            an amount such as "1M", "200M", "2MB" or "4ms". Size and latency are measured on the written file.
        latency_table: times of the network's layers on another machine, as `pfp latency --pack` has them written; None
            measures on this one.
        epsilon: relative error that no layer may exceed; the smallest network within it is made, and `keep` is unused.
        allocate: how many channels each group keeps, one of `pfpcli.planning.allocations.ALLOCATIONS`, or "best"
            for the best of several, measured.
        steps: number of cuts; the network is recovered and scored again between them.
        recover: recovery methods after the cut, some of `pfpcli.recovery.methods.RECOVERIES`, in order.
        epochs: largest number of epochs of "distill"; None means 30 where `minutes` is None too.
        minutes: longest time of "distill"; the steps share it.
        multiple_of: kept channels are a multiple of this; None takes 8 for groups of 64 channels or more and 4 from 16
            on, less where the budget could not be met; in small networks 4, or 1 where that loses more than it gains.
        min_channels: smallest number of channels a group keeps.
        metric: "FILE.py:FUNCTION", a metric of the user: it gets the path of an ONNX file and of the folder of judging
            images, and returns a number, higher is better.
        max_drop: how far the metric, or the quality where there is no metric, may fall. Where nothing says how much to
            keep, the smallest such network is searched; otherwise a run beyond it has failed.
        plan: plan.json of another run, or of `pfp plan`, that is cut; None makes a plan.
        int8: also write the network with 8-bit weights and activations.
        fp16: also write the network with 16-bit floats.
        robustness: also measure the quality on damaged images.
        out: run folder; None means pfp-runs/<model>-keep<R> (or -epsilon<E>).
    """

    keep: float | None = None
    keep_of: str = "params"
    params: str | float | None = None
    macs: str | float | None = None
    size: str | float | None = None
    latency: str | float | None = None
    latency_table: Path | None = None
    epsilon: float | None = None
    allocate: str = BEST
    steps: int = 1
    recover: tuple[str, ...] = ("lsq",)
    epochs: int | None = None
    minutes: float | None = None
    multiple_of: int | None = None
    min_channels: int = 1
    metric: str | None = None
    max_drop: MaxDrop | None = None
    plan: Path | None = None
    int8: bool = False
    fp16: bool = False
    robustness: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        """Check the values of this class, after those of scoring."""
        super().__post_init__()
        self._check_amount()
        check_keep("--keep", self.fraction)
        if self.criterion == "auto" and self._bounds_an_error():
            object.__setattr__(self, "criterion", "pfp")  # the one of its criteria whose scores bound errors
        bounds = CRITERIA[self.criterion].bounds_error
        self._check_epsilon(bounds)
        check_allocate(self.allocate, bounds, self.criterion)
        self._check_plan()
        for method in self.recover:
            if method not in RECOVERIES:
                raise InputError(f"--recover {method}: expected none or some of {', '.join(RECOVERIES)}")
        check_training_limits(self.epochs, self.minutes)
        given = "--epochs" if self.epochs is not None else "--minutes"
        if "distill" not in self.recover and (self.epochs, self.minutes) != (None, None):
            raise InputError(f"{given}: nothing is trained", "use `--recover lsq,distill` with it")

    def _bounds_an_error(self) -> bool:
        """Whether the widths follow from one error of all layers."""
        return self.epsilon is not None or (self.allocate != BEST and ALLOCATIONS[self.allocate].shares_error)

    @property
    def precisions(self) -> tuple[str, ...]:
        """The precisions below float32 that are asked for, as `pfpcli.records.folders.PRECISIONS` names them."""
        return tuple(name for name in PRECISIONS if getattr(self, name))

    @property
    def timed_in(self) -> str:
        """The precision of the file whose latency a budget counts: where an int8 file is asked for, it is that one."""
        return "int8" if self.int8 and self.measure == "latency" else "float32"

    @property
    def is_whole(self) -> bool:
        """Whether nothing is pruned, because the network is only to be written in another precision."""
        return self.keep == 1 and self.epsilon is None and self.plan is None and bool(self.precisions)

    def _check_amount(self) -> None:
        """Refuse two budgets, and settings that only a latency has."""
        names = [name for name in ("keep", "epsilon", "plan", *COUNTED) if getattr(self, name) is not None]
        if self.amount is not None and len(names) > 1:
            raise InputError(f"{' '.join(f'--{name}' for name in names)}: several budgets", "give one of them")
        if self.measure in ("size", "latency") and self.steps > 1:
            raise InputError(
                f"--steps {self.steps}: the {COUNTED[self.measure].noun} is measured on one written file",
                "use --keep-of macs with --steps",
            )
        if self.latency_table is not None and self.measure != "latency":
            raise InputError("--latency-table: the budget is no latency", "use it with --latency 0.6")

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

    def _check_plan(self) -> None:
        """Refuse a plan beside a budget: a plan has one."""
        given = [f"--{name} {value:g}" for name in ("keep", "epsilon") if (value := getattr(self, name)) is not None]
        if self.plan is not None and (given or self.steps > 1):
            raise InputError(
                f"--plan {self.plan.name} {' '.join(given) or f'--steps {self.steps}'}: a plan says what to keep",
                "give one of them",
            )

    @property
    def amount(self) -> Amount | None:
        """What the network has at most; None where `keep` or another budget says how far to go."""
        given = ((name, getattr(self, name)) for name in COUNTED)
        return next((parse_amount(name, value) for name, value in given if value is not None), None)

    @property
    def measure(self) -> str:
        """What the budget counts, one of `pfpcli.amounts.COUNTED`."""
        return self.keep_of if self.amount is None else self.amount.of

    @property
    def fraction(self) -> float:
        """The fraction to keep, as far as it is known before the network is."""
        if self.amount is not None:
            return self.amount.fraction or KEEP
        return KEEP if self.keep is None else self.keep

    @property
    def is_searched(self) -> bool:
        """Whether the smallest network within `max_drop` is searched."""
        others = (self.keep, self.epsilon, self.plan, self.amount)
        return self.max_drop is not None and all(each is None for each in others)

    @property
    def folder(self) -> Path:
        """The folder to write."""
        return self.out or RUNS / self.name

    @property
    def name(self) -> str:
        """The name of the run: the model and the budget."""
        if self.plan is not None:
            asked = "planned"
        elif self.amount is not None:
            asked = f"{self.amount.of}{self.amount.text.replace('%', '')}"
        elif self.is_searched:
            asked = f"drop{self.max_drop}"
        else:
            asked = f"keep{self.fraction:.2f}" if self.epsilon is None else f"epsilon{self.epsilon:g}"
        return f"{self.model.stem}-{asked}"

"""Everything a command can be told, with its defaults, for the command line, the API and the record alike."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from math import isfinite
from pathlib import Path
from typing import Any

from pfpcli.errors import InputError
from pfpcli.planning.allocations import ALLOCATIONS
from pfpcli.recovery import RECOVERIES
from pfpcli.scoring.criteria import CRITERIA, WEIGHT_CRITERIA

#: Times that all images are seen in training where no limit is given.
EPOCHS = 30


@dataclass(frozen=True, kw_only=True)
class Network:
    """What to load, and what of it may be cut.

    Attributes:
        model: path of the checkpoint.
        arch: who builds the network of a state dict, e.g. "torchvision:resnet18".
        arch_kwargs: keyword arguments for `arch`.
        trust: load pickles that name classes outside the allow-list.
        input_size: (C, H, W) (or any shape without the batch) where the file does not say.
        freeze: dotted-name globs; of layers that match nothing is dropped.
        exact_only: leave channels alone that a statistic is taken across.
        strict: refuse networks with ops that have no rule.
    """

    model: Path
    arch: str | None = None
    arch_kwargs: dict[str, Any] | None = None
    trust: bool = False
    input_size: tuple[int, ...] | None = None
    freeze: tuple[str, ...] = ()
    exact_only: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        """Refuse values that no step could use, before anything is loaded."""
        if self.input_size is not None and min(self.input_size) < 1:
            raise InputError(
                f"--input-size {','.join(map(str, self.input_size))}: expected sizes from 1 up",
                "for example `--input-size 3,224,224`",
            )
        for name, choices in self.choices().items():
            value = getattr(self, name, choices[0])
            if value not in choices:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected one of {', '.join(choices)}")
        for name in ("samples", "steps", "multiple_of", "min_channels", "threads"):
            value = getattr(self, name, None)
            if value is not None and value < 1:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected a whole number from 1 up")

    @classmethod
    def choices(cls) -> dict[str, tuple[str, ...]]:
        """Setting -> the values it may have, where they are fixed."""
        return CHOICES

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values for the record; paths are cut to their last part, which is no one's business."""
        out: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Path):
                value = value.name
            elif isinstance(value, tuple):
                value = list(value)
            elif field.name == "preprocess" and value is not None:
                value = Path(value).name
            out[field.name] = value
        return out


@dataclass(frozen=True, kw_only=True)
class Calibrated(Network):
    """A network with calibration images.

    Attributes:
        calib: folder of calibration images (or arrays).
        eval: folder of images to report quality on; None holds out a part of `calib`.
        samples: calibration images used for scoring; None takes |S| from the formula.
        preprocess: preset name or path of a TOML file; None chooses "imagenet" for images and "none" for arrays.
        mean, std: per channel, override the preset.
        resize: "S" (short side, then centre crop) or "HxW" (stretch); None means the short side of the input.
        convert: convert images whose number of channels is not the model's.
        device: "auto", "cpu", "cuda" or "mps".
        threads: CPU threads for torch and onnxruntime; None uses all cores.
        seed: of every random choice.
    """

    calib: Path
    eval: Path | None = None
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
        """As for the network."""
        super().__post_init__()
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: expected a whole number from 0 up")
        if self.std is not None and not all(isfinite(s) and s > 0 for s in self.std):
            raise InputError("--std: expected numbers above 0, one per channel")


@dataclass(frozen=True, kw_only=True)
class Certify(Calibrated):
    """Which run to check; `calib` has the images to check it on.

    Attributes:
        run: its folder.
    """

    run: Path


@dataclass(frozen=True, kw_only=True)
class Scoring(Calibrated):
    """What scoring goes by, whatever the criterion.

    Attributes:
        reduce: sensitivity over kernel positions, "sum" (the share of the whole channel) or "max" (torchprune).
        delta: probability with which an error bound may fail; it sets the size of the calibration set too.
        cache: take scores from the cache where they are there, and keep them there.
    """

    reduce: str = "sum"
    delta: float = 1e-16
    cache: bool = True

    def __post_init__(self) -> None:
        """As for the network."""
        super().__post_init__()
        _check_delta(self.delta)


@dataclass(frozen=True, kw_only=True)
class Rank(Scoring):
    """How channels are scored.

    Attributes:
        criterion: one of `pfpcli.scoring.criteria.CRITERIA`; "pfp" is the sensitivity of Provable Filter Pruning.
    """

    criterion: str = "pfp"


@dataclass(frozen=True, kw_only=True)
class Compare(Scoring):
    """Which criteria to compare, and where.

    Attributes:
        criteria: some of `pfpcli.scoring.criteria.CRITERIA`.
        keeps: fractions of `keep_of` to keep, each 0 < keep <= 1.
        keep_of: what `keeps` measure, "params" or "macs".
        out: folder; None means pfp-runs/<model>-criteria.
    """

    criteria: tuple[str, ...] = tuple(CRITERIA)
    keeps: tuple[float, ...] = (0.8, 0.6, 0.4)
    keep_of: str = "macs"
    out: Path | None = None

    def __post_init__(self) -> None:
        """As for the network."""
        super().__post_init__()
        for name in self.criteria:
            if name not in CRITERIA:
                raise InputError(f"--criteria {name}: expected some of {', '.join(CRITERIA)}")
        for keep in self.keeps:
            check_keep("--keeps", keep)

    @property
    def name(self) -> str:
        """What the folder is called."""
        return f"{self.model.stem}-criteria"


@dataclass(frozen=True, kw_only=True)
class Settings(Rank):
    """What to compress and how far.

    Attributes:
        keep: fraction of `keep_of` to keep, 0 < keep <= 1.
        keep_of: what `keep` measures, "params" or "macs".
        epsilon: keep as little as leaves every layer within this relative error; `keep` does not count then.
        allocate: who says how many channels each group keeps, one of `pfpcli.planning.allocations.ALLOCATIONS`.
        steps: cut in so many steps, with recovery and scoring between them.
        recover: what is done after a cut to get back what was lost, some of `pfpcli.recovery.RECOVERIES`, in order.
        epochs: of "distill": times that all images are seen, at most; None means 30 where `minutes` is no limit either.
        minutes: how long "distill" takes, at most; shared by the steps.
        multiple_of: kept channels are rounded up to a multiple of this.
        min_channels: smallest number of channels a group keeps.
        out: run folder; None means pfp-runs/<model>-keep<R> (or -epsilon<E>).
    """

    keep: float = 0.5
    keep_of: str = "params"
    epsilon: float | None = None
    allocate: str = "divergence"
    steps: int = 1
    recover: tuple[str, ...] = ("lsq",)
    epochs: int | None = None
    minutes: float | None = None
    multiple_of: int = 1
    min_channels: int = 1
    out: Path | None = None

    def __post_init__(self) -> None:
        """As for the network."""
        super().__post_init__()
        check_keep("--keep", self.keep)
        if self.epsilon is not None and not (isfinite(self.epsilon) and self.epsilon > 0):
            raise InputError(f"--epsilon {self.epsilon:g}: expected a relative error above 0", "e.g. `--epsilon 0.1`")
        if self.epsilon is not None and self.steps > 1:
            raise InputError(
                f"--epsilon {self.epsilon:g} --steps {self.steps}: an error is asked for of one network",
                "use --keep with --steps",
            )
        bounds = CRITERIA[self.criterion].allocate == "pfp"
        if self.epsilon is not None and not bounds:
            raise InputError(
                f"--epsilon {self.epsilon:g}: criterion {self.criterion} bounds no error",
                "use --criterion pfp with it, or --keep instead of it",
            )
        if self.allocate == "pfp" and not bounds:
            raise InputError(
                f"--allocate pfp: criterion {self.criterion} bounds no error",
                "use --criterion pfp with it, or another of --allocate",
            )
        for method in self.recover:
            if method not in RECOVERIES:
                raise InputError(f"--recover {method}: expected none or some of {', '.join(RECOVERIES)}")
        _check_limits(self.epochs, self.minutes)
        given = "--epochs" if self.epochs is not None else "--minutes"
        if "distill" not in self.recover and (self.epochs, self.minutes) != (None, None):
            raise InputError(f"{given}: nothing is trained", "use `--recover lsq,distill` with it")

    @property
    def name(self) -> str:
        """What the run is called: the model and what was asked for."""
        asked = f"keep{self.keep:.2f}" if self.epsilon is None else f"epsilon{self.epsilon:g}"
        return f"{self.model.stem}-{asked}"


@dataclass(frozen=True, kw_only=True)
class Sparsity(Calibrated):
    """Which single weights to remove, and how many.

    Attributes:
        criterion: one of `pfpcli.scoring.criteria.WEIGHT_CRITERIA`; "sipp" is the sensitivity of SiPP.
        delta: probability with which an error bound may fail; it sets the size of the calibration set too.
        keep: fraction of the parameters that stay nonzero, 0 < keep <= 1.
        cut_dead: cut the channels off that nothing reads any more.
        out: run folder; None means pfp-runs/<model>-sparse<R>.
    """

    criterion: str = "sipp"
    delta: float = 1e-16
    keep: float = 0.5
    cut_dead: bool = False
    out: Path | None = None

    def __post_init__(self) -> None:
        """As for the network."""
        super().__post_init__()
        _check_delta(self.delta)
        check_keep("--keep", self.keep)

    @classmethod
    def choices(cls) -> dict[str, tuple[str, ...]]:
        """As for the network; weights have criteria of their own."""
        return CHOICES | {"criterion": tuple(WEIGHT_CRITERIA)}

    @property
    def name(self) -> str:
        """What the run is called: the model and what was asked for."""
        return f"{self.model.stem}-sparse{self.keep:.2f}"


@dataclass(frozen=True, kw_only=True)
class Finetune(Calibrated):
    """How to train the network of a run with labels.

    `model` is its exported program, or its ONNX file where the run was given one; `calib` has the class folders.

    Attributes:
        run: folder of the run.
        teacher: the model the run was made of, to learn from as well; None learns from the labels alone.
        distill_weight: share of the teacher in the loss, 0 to 1; None means a half where there is a teacher.
        epochs: times that all images are seen, at most; None means 30 where `minutes` sets no limit either.
        minutes: how long, at most.
        lr: the highest learning rate.
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
        """As for the network."""
        super().__post_init__()
        _check_limits(self.epochs, self.minutes)
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
        """Times that all images are seen, at most; None where time is the limit."""
        return most_epochs(self.epochs, self.minutes)

    @property
    def folder(self) -> Path:
        """Where the run goes."""
        return self.out or self.run.with_name(f"{self.run.name}-finetuned")


def most_epochs(epochs: int | None, minutes: float | None) -> int | None:
    """Times that all images are seen in training, at most; None where time is the limit."""
    return EPOCHS if epochs is None and minutes is None else epochs


def _check_limits(epochs: int | None, minutes: float | None) -> None:
    if epochs is not None and epochs < 1:
        raise InputError(f"--epochs {epochs}: expected a whole number from 1 up")
    if minutes is not None and not (isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes {minutes:g}: expected a number above 0")


def _check_delta(delta: float) -> None:
    if not 0 < delta < 1:
        raise InputError(f"--delta {delta:g}: expected a probability above 0 and below 1", "e.g. --delta 1e-9")


CHOICES: dict[str, tuple[str, ...]] = {
    "keep_of": ("params", "macs"),
    "allocate": tuple(ALLOCATIONS),
    "criterion": tuple(CRITERIA),
    "reduce": ("sum", "max"),
    "device": ("auto", "cpu", "cuda", "mps"),
}


def check_keep(flag: str, keep: float) -> None:
    """Refuse what is no fraction to keep.

    Raises:
        InputError: it is not above 0 and at most 1.
    """
    if not (isfinite(keep) and 0 < keep <= 1):
        raise InputError(
            f"{flag} {keep:g}: expected a fraction above 0 and at most 1",
            "keep two fifths of the parameters with `--keep 0.4` or `--keep 40%`",
        )


def parse_keep(text: str) -> float:
    """`0.4` or `40%` as a fraction.

    Raises:
        InputError: it is not a number; the range is checked by `Settings`.
    """
    match = re.fullmatch(r"\s*([-+]?[\w.]+(?:[eE][-+]?\d+)?)\s*(%?)\s*", text)
    try:
        value = float(match[1]) if match else float(text)
    except ValueError:
        raise InputError(
            f"--keep {text}: expected a number such as 0.4 or 40%",
            "keep two fifths of the parameters with `--keep 0.4`",
        ) from None
    return value / 100 if match and match[2] else value


def parse_numbers(flag: str, text: str, kind: type[int] | type[float]) -> tuple[Any, ...]:
    """Comma-separated numbers, e.g. `3,224,224`.

    Raises:
        InputError: a part is not a number of that kind.
    """
    try:
        return tuple(kind(part) for part in text.split(","))
    except ValueError:
        example = "3,224,224" if kind is int else "0.485,0.456,0.406"
        raise InputError(
            f"{flag} {text}: expected numbers separated by commas", f"for example `{flag} {example}`"
        ) from None

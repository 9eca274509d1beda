"""The points of `make bench-accuracy`, in the order they are measured; imports no torch."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings import CompressSettings

#: Budgets in fractions of the MACs, the most telling first.
BUDGETS = (0.5, 0.73, 0.35)
MODELS = ("resnet20", "resnet56")
#: Minutes of training of the points that are trained.
MINUTES = 5.0

#: What pfp is told, where it is more than the criterion: name -> settings other than the defaults.
VARIANTS: dict[str, dict[str, Any]] = {
    "pfp, as published": {"criterion": "pfp", "allocate": "pfp", "reduce": "max", "recover": ()},
    "obs, 3 steps": {"criterion": "obs", "steps": 3},
    "obs, uniform": {"criterion": "obs", "allocate": "uniform"},
}
#: The one that trains by itself: it is trained in no other way.
DISTILLED = "obs, pfp's own distillation"
OWN_TRAINING: dict[str, dict[str, Any]] = {DISTILLED: {"criterion": "obs", "recover": ("lsq", "distill")}}

#: What each tool is installed as.
MODULES = {"pfp": "pfpcli", "torch-pruning": "torch_pruning", "onnxsim": "onnxsim"}

_TORCH_PRUNING = ("l2", "taylor-global", "l2-global", "taylor", "l1", "fpgm", "random")
_ONNXSIM = ("wanda+bn-in-turn", "wanda", "l2+bn-in-turn", "l2+bn", "l2", "l1")
#: What says most, and what the chart shows.
TELLING = (
    *(("pfp", name) for name in ("obs", "pfp", "pfp, as published")),
    *(("torch-pruning", name) for name in ("l2", "taylor-global")),
    *(("onnxsim", name) for name in ("wanda+bn-in-turn", "wanda")),
)
#: What is trained after the cut.
TRAINED = (
    *(("pfp", name) for name in ("obs", DISTILLED, "pfp, as published")),
    *(("torch-pruning", name) for name in ("l2", "taylor-global")),
    ("onnxsim", "wanda"),
)


@dataclass(frozen=True)
class Wanted:
    """One point: what is measured."""

    tool: str
    criterion: str
    model: str
    asked: float
    minutes: float

    @property
    def name(self) -> str:
        """What `--only` is compared with."""
        return f"{self.tool}/{self.criterion}/{self.model}/{self.asked:g}/{self.minutes:g}"

    def key(self) -> tuple[Any, ...]:
        """What tells it from the others, in a record of it too."""
        return tuple(asdict(self).values())


def key_of(found: dict[str, Any]) -> tuple[Any, ...]:
    """The key of the point that a record is of."""
    return tuple(found[field.name] for field in fields(Wanted))


def untrained() -> list[tuple[str, str]]:
    """Tools and criteria that are measured right after the cut, the most telling first."""
    ours = [("pfp", name) for name in (*VARIANTS, *CRITERIA)]
    peers = [("torch-pruning", name) for name in _TORCH_PRUNING] + [("onnxsim", name) for name in _ONNXSIM]
    return list(dict.fromkeys([*TELLING, *ours, *peers]))


def wanted() -> Iterator[Wanted]:
    """All points in order: what is not trained before what is."""
    for model in MODELS:
        for asked in BUDGETS:
            for tool, criterion in untrained():
                yield Wanted(tool, criterion, model, asked, 0.0)
    for asked in BUDGETS:
        for model in MODELS:
            for tool, criterion in TRAINED:
                yield Wanted(tool, criterion, model, asked, MINUTES)


def unable(tool: str, criterion: str) -> str | None:
    """Why a point cannot be measured in this checkout, if it cannot."""
    if (
        tool == "pfp"
        and criterion in OWN_TRAINING
        and "minutes" not in {field.name for field in fields(CompressSettings)}
    ):
        return "`pfp compress` has no --minutes here"
    if importlib.util.find_spec(MODULES[tool]) is None:
        return f"{tool} is not installed"
    return None

"""Settings of the network: what to load, and which channels may be cut."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pfpcli.amounts import COUNTED
from pfpcli.channels.places import EVERYWHERE, PLACES
from pfpcli.errors import InputError
from pfpcli.outputs.asked import TASKS, Asked, parse
from pfpcli.planning.allocations import ALLOCATIONS, BEST
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings.checks import MOST, check_count
from pfpcli.settings.max_drop import MaxDrop

#: Setting -> the values it may have, where they are fixed.
CHOICES: dict[str, tuple[str, ...]] = {
    "keep_of": tuple(COUNTED),
    "allocate": (BEST, *ALLOCATIONS),
    "criterion": tuple(CRITERIA),
    "where": PLACES,
    "reduce": ("sum", "max"),
    "device": ("auto", "cpu", "cuda", "mps"),
}
#: Setting that counts something, and is at least 1 -> the most that it may be.
_COUNTS = {"samples": MOST, "steps": 1000, "multiple_of": MOST, "min_channels": MOST, "threads": 1024}


@dataclass(frozen=True, eq=False)
class InMemoryModel:
    """A module that the caller of the Python API has in memory, in the place of a file.

    Attributes:
        module: a `torch.nn.Module`; it is copied, not changed.
        name: the name it has in reports and folders: the name of its class.
    """

    module: Any = dataclasses.field(repr=False)  # its own repr may fail
    name: str

    @property
    def stem(self) -> str:
        """The name without a suffix, as a path has it."""
        return self.name


@dataclass(frozen=True, kw_only=True)
class NetworkSettings:
    """What to load, and which channels may be cut. `pfp inspect` needs nothing else.

    Attributes:
        model: path of the checkpoint, or a module in memory.
        arch: what builds the network of a state dict, e.g. "torchvision:resnet18".
        arch_kwargs: keyword arguments for `arch`.
        trust: load pickles that name classes outside the allow-list.
        input_size: (C, H, W), or any shape without the batch, where the file does not say.
        freeze: dotted-name globs; no channel of a layer that matches is dropped. `NAME:out` names only the channels
            that a layer makes, `NAME:in` those that it reads.
        where: "everywhere", or "inside": only channels inside of residual blocks are dropped.
        exact_only: freeze channels that a statistic is taken across.
        strict: refuse networks with ops that have no rule.
        output: what outputs say, "NAME=ROLE" or "NAME=ROLE:AXIS" each; all others are told by themselves.
        task: what the network is for, one of `pfpcli.outputs.roles.TASKS`; None tells it by the network.
        origins: setting -> where its value came from; a setting that is not there has its default, or came from a
            caller in Python.
    """

    model: Path | InMemoryModel
    arch: str | None = None
    arch_kwargs: dict[str, Any] | None = None
    trust: bool = False
    input_size: tuple[int, ...] | None = None
    freeze: tuple[str, ...] = ()
    where: str = EVERYWHERE
    exact_only: bool = False
    strict: bool = False
    output: tuple[str, ...] = ()
    task: str | None = None
    origins: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        """Refuse values that no step could use, before anything is loaded."""
        if self.input_size is not None and min(self.input_size, default=0) < 1:
            raise InputError(
                f"--input-size {','.join(map(str, self.input_size))}: expected sizes from 1 up",
                "for example `--input-size 3,224,224`",
            )
        for name, choices in self.choices().items():
            value = getattr(self, name, choices[0])
            if value not in choices:
                raise InputError(f"--{name.replace('_', '-')} {value}: expected one of {', '.join(choices)}")
        if self.task is not None and self.task not in TASKS:
            raise InputError(f"--task {self.task}: expected one of {', '.join(TASKS)}")
        _ = self.asked
        for name, most in _COUNTS.items():
            value = getattr(self, name, None)
            check_count(f"--{name.replace('_', '-')}", value, most)

    @property
    def asked(self) -> Asked:
        """What the user says about the outputs."""
        return parse(self.output, self.task)

    @classmethod
    def choices(cls) -> dict[str, tuple[str, ...]]:
        """Setting -> the values it may have, where they are fixed."""
        return CHOICES

    def recorded(self) -> dict[str, Any]:
        """The settings as plain values for the record. Of a path only the last part is recorded: it is private."""
        out: dict[str, Any] = {}
        for field in fields(self):
            if field.name == "origins":
                continue
            value = getattr(self, field.name)
            if isinstance(value, Path | InMemoryModel):
                value = value.name
            elif isinstance(value, tuple):
                value = list(value)
            elif isinstance(value, MaxDrop):
                value = value.recorded()
            elif field.name == "preprocess" and value is not None:
                value = Path(value).name
            out[field.name] = value
        return out

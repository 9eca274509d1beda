"""Training state: the progress of a training, and the file that holds it while the training is interrupted."""

from __future__ import annotations

import contextlib
import io
import pickle
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pfpcli import processes
from pfpcli.cache_folder import read_sealed, write_sealed


@dataclass
class TrainingState:
    """The progress of a training. With the tensors, the optimizer and the scaler it is all that a restart needs.

    Attributes:
        epoch: the index of the epoch.
        step: the number of optimizer steps in this epoch.
        seconds: the time so far.
        checked: the number of the last check; numbers may be skipped.
        before: the figure before training.
        best: the largest figure so far.
        figure: the figure of the chosen tensors.
        held: name -> the chosen tensors so far.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    checked: int = 0
    before: float = 0.0
    best: float = 0.0
    figure: float = 0.0
    held: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StateFile:
    """The file of a training state.

    Attributes:
        path: the file; None to keep nothing.
        tensors: name -> the trained tensors.
        optimizer, scaler: their states are kept as well.
    """

    path: Path | None
    tensors: dict[str, nn.Parameter]
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler

    def write(self, state: TrainingState) -> None:
        """Write the file, unless this is not the first process. A full or read-only disk is not an error."""
        if self.path is None or processes.rank():
            return
        content = {each.name: getattr(state, each.name) for each in fields(state)}
        content |= {"now": copied(self.tensors), "optimizer": self.optimizer.state_dict()}
        content |= {"scaler": self.scaler.state_dict()}
        buffer = io.BytesIO()
        torch.save(content, buffer)
        with contextlib.suppress(OSError):
            write_sealed(self.path, buffer.getvalue())

    def read(self) -> TrainingState | None:
        """Restore tensors, optimizer and scaler, and return the state; None if the file is missing or does not fit."""
        if self.path is None:
            return None
        try:
            content = torch.load(io.BytesIO(read_sealed(self.path)), map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, pickle.UnpicklingError):
            return None
        now: dict[str, Tensor] = content.get("now", {})
        if {name: x.shape for name, x in now.items()} != {name: x.shape for name, x in self.tensors.items()}:
            return None
        restore(self.tensors, now)
        self.optimizer.load_state_dict(content["optimizer"])
        self.scaler.load_state_dict(content["scaler"])
        known: dict[str, Any] = {each.name: content[each.name] for each in fields(TrainingState)}
        return TrainingState(**known)


def copied(tensors: dict[str, nn.Parameter]) -> dict[str, Tensor]:
    """Copies of tensors, on the CPU."""
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def restore(tensors: dict[str, nn.Parameter], values: dict[str, Tensor]) -> None:
    """Copy values into tensors."""
    with torch.no_grad():
        for name, tensor in tensors.items():
            tensor.copy_(values[name])

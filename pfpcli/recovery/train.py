"""Train: gradient descent on a graph with any loss. The state with the best figure on other images stays.

The optimizer is SGD with Nesterov momentum. The learning rate rises in the first steps and then falls along a cosine to
zero, over the epochs or minutes that are allowed (SGDR without restarts: Loshchilov & Hutter, ICLR 2017). Batch norms
keep their running statistics and train their scales and shifts.

Interrupted training writes its state to a file. The next call with the same file continues from there.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pfpcli import processes
from pfpcli.errors import Interrupted
from pfpcli.graph.graph import Graph
from pfpcli.outputs.quality import standard_error
from pfpcli.recovery.loss_on_device import Loss, on_device
from pfpcli.recovery.trainable import trainable
from pfpcli.recovery.training_batches import Labels, TrainingBatches
from pfpcli.recovery.training_state import StateFile, TrainingState, copied, restore

#: The smallest number of images for one optimizer step; smaller batches are accumulated.
_STEP_IMAGES = 16
#: The fraction of the training in which the learning rate rises, and the largest norm of a gradient.
_WARM_UP, _CLIP = 0.05, 5.0
#: Seconds between two writes of the state.
_SAVE = 30.0
#: The largest number of checks during a training. A check follows a whole epoch.
_CHECKS = 40


@dataclass(frozen=True)
class Schedule:
    """The length of a training and its learning rate. The training ends at the first limit it reaches.

    Attributes:
        epochs: the largest number of passes over the images; None for no limit.
        minutes: the longest time; None for no limit.
        rate: the highest learning rate.
        decay: the weight decay; biases and norms do not decay.
    """

    epochs: int | None
    minutes: float | None
    rate: float
    decay: float = 1e-4

    def done(self, epochs: float, seconds: float) -> float:
        """The fraction of the training that is done, 0 to 1."""
        parts = [epochs / self.epochs if self.epochs else 0.0, seconds / (60 * self.minutes) if self.minutes else 0.0]
        return min(1.0, max(parts))

    def rate_at(self, done: float) -> float:
        """The learning rate at a fraction of the training."""
        return self.rate * min(1.0, (done + 1e-3) / _WARM_UP) * (1 + math.cos(math.pi * done)) / 2


@dataclass(frozen=True)
class Trained:
    """The result of a training.

    Attributes:
        epochs: the number of passes over the images; not a whole number if the last pass was not finished.
        seconds: the time, including the time before an interruption.
        before: the figure before the training.
        after: the figure of the tensors that stay.
    """

    epochs: float
    seconds: float
    before: float
    after: float


@dataclass(frozen=True)
class Check:
    """A figure of the network on images that are not trained on.

    Attributes:
        figure: returns the figure of the network as it is now: a fraction, where larger is better.
        images: the number of images.
    """

    figure: Callable[[], float]
    images: int

    def noise(self, figure: float) -> float:
        """The standard error of a figure."""
        return standard_error(figure, self.images)


#: `progress(done, figure)`: the fraction that is done, 0 to 1, and the best figure so far; called often.
Progress = Callable[[float, float], None]


def silent(done: float, figure: float) -> None:
    """Ignore the progress."""


def train(
    graph: Graph,
    loss: Loss,
    check: Check,
    batches: TrainingBatches,
    schedule: Schedule,
    device: torch.device,
    *,
    state: Path | None = None,
    progress: Progress = silent,
) -> Trained:
    """Train a network in place. If no state has a better figure, the network keeps its old tensors.

    Args:
        graph: the network.
        loss: the loss to minimise.
        check: the figure to maximise.
        batches: the training images.
        schedule: the limits and the learning rate.
        device: the device to compute on.
        state: the file for the state; it is read if it fits the network. Whoever named it removes it: until then, a
            training that has finished is not repeated.
        progress: receives the fraction that is done and the best figure so far.

    Raises:
        KeyboardInterrupt, Interrupted: after the state was written; the tensors are those of the last step.
    """
    with graph.on(device), trainable(graph) as tensors:
        return _Training(tensors, loss, check, batches, schedule, device, state).run(progress)


class _Training:
    """A training in progress; the arguments are those of `train`."""

    def __init__(
        self,
        tensors: dict[str, nn.Parameter],
        loss: Loss,
        check: Check,
        batches: TrainingBatches,
        schedule: Schedule,
        device: torch.device,
        path: Path | None,
    ) -> None:
        self.tensors = tensors
        self.loss = loss
        self.check = check
        self.batches = batches
        self.schedule = schedule
        self.device = device
        self.optimizer = _optimizer(tensors, schedule.decay)
        self.scaler = torch.amp.GradScaler("cuda", enabled=device.type == "cuda")
        self.file = StateFile(path, tensors, self.optimizer, self.scaler)
        # n processes have n times the batches in a step: each process accumulates as many as one process would alone
        self.accumulated = max(1, -(-_STEP_IMAGES // batches.batch)) * processes.count()
        self.state = TrainingState()

    def run(self, progress: Progress) -> Trained:
        self.state = self.file.read() or self._first_state()
        self.loss = on_device(self.loss, self.batches, self.device)
        self._zero_gradients()  # the choice of the format has left some
        try:
            self._train(progress)
        except (KeyboardInterrupt, Interrupted):
            self.file.write(self.state)
            raise
        self.file.write(self.state)
        restore(self.tensors, self.state.held)
        return Trained(self._epochs(), self.state.seconds, self.state.before, self.state.figure)

    def _first_state(self) -> TrainingState:
        figure = self.check.figure()
        return TrainingState(before=figure, best=figure, figure=figure, held=copied(self.tensors))

    def _epochs(self) -> float:
        return self.state.epoch + min(1.0, self.state.step * self.accumulated / len(self.batches))

    def _done(self) -> float:
        return self.schedule.done(self._epochs(), self.state.seconds)

    def _train(self, progress: Progress) -> None:
        state = self.state
        began, saved = time.perf_counter() - state.seconds, time.perf_counter()
        while state.checked < _CHECKS:
            for batches in self._steps():
                if self._done() >= 1:  # interrupted before the last check
                    break
                self._descend(batches)
                state.step += 1
                state.seconds = processes.largest(time.perf_counter() - began)
                progress(self._done(), state.figure)
                if time.perf_counter() - saved > _SAVE:
                    self.file.write(state)
                    saved = time.perf_counter()
                if self._done() >= 1:
                    break
            else:
                state.epoch, state.step = state.epoch + 1, 0
            due = int(_CHECKS * self._done())
            if due > state.checked:
                state.checked = due
                self._hold(self.check.figure())
                state.seconds = processes.largest(time.perf_counter() - began)

    def _hold(self, figure: float) -> None:
        """Choose the present tensors if the images cannot tell their figure from the best one.

        The largest of many noisy figures is partly luck. The latest of the states that cannot be told apart is not
        chosen by luck.
        """
        state = self.state
        state.best = max(state.best, figure)
        if figure > state.before and figure >= state.best - self.check.noise(state.best):
            state.figure, state.held = figure, copied(self.tensors)

    def _steps(self) -> Iterator[list[tuple[Tensor, Labels, torch.Generator]]]:
        """The batches of each optimizer step in the rest of the epoch."""
        gathered = []
        start = self.state.step * self.accumulated
        for number, (x, labels) in enumerate(self.batches.epoch(self.state.epoch, start), start):
            gathered.append((x, labels, self.batches.generator(self.state.epoch, number)))
            if len(gathered) == self.accumulated:
                yield gathered
                gathered = []
        if gathered:
            yield gathered

    def _descend(self, batches: list[tuple[Tensor, Labels, torch.Generator]]) -> None:
        """One step of the optimizer; each process computes the gradients of its share of the batches."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.schedule.rate_at(self._done())
        for x, labels, generator in batches[processes.rank() :: processes.count()]:
            loss = self.loss(x, labels, generator) / len(batches)
            self.scaler.scale(loss).backward()
        for tensor in self.tensors.values() if processes.count() > 1 else ():
            tensor.grad = processes.total(torch.zeros_like(tensor) if tensor.grad is None else tensor.grad)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.tensors.values(), _CLIP)
        if self.scaler.is_enabled() or norm.isfinite():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        self._zero_gradients()

    def _zero_gradients(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)


def _optimizer(tensors: dict[str, nn.Parameter], decay: float) -> torch.optim.Optimizer:
    weights = [tensor for tensor in tensors.values() if tensor.dim() > 1]
    others = [tensor for tensor in tensors.values() if tensor.dim() <= 1]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": decay}, {"params": others}]
    return torch.optim.SGD(groups, lr=0.0, momentum=0.9, nesterov=True)

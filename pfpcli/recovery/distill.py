"""Distill: train a cut network to match the original, on images without labels.

The loss of a batch compares the outputs of both networks, the inputs of their last layers, and the ends of their
residual branches:

    L = mean over outputs of D(output) + mean over features of R(feature)

R is the squared distance relative to the original, |ŷ - y|² / mean |y|². D depends on what the output says
(`outputs.kinds`); it is R for real numbers, and a divergence plus R for scores. The features are the inputs of the last
layers before an output, and the sums of two branches, both sliced to the kept channels.

Source of the features: Romero et al., FitNets, ICLR 2015, here without a map in between, because the kept channels are
channels of the original.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli.activations.value_recorder import ValueRecorder
from pfpcli.channels import residual_blocks, rules
from pfpcli.channels.rules.statistics import NORMS
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut
from pfpcli.images.calibration import Division
from pfpcli.outputs.kinds import KINDS
from pfpcli.outputs.kinds.kind import relative
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.roles import real, roles_of, select
from pfpcli.recovery.augment import altered, mixed, moved
from pfpcli.recovery.closeness import closeness
from pfpcli.recovery.task import RecoveryTask
from pfpcli.recovery.train import Check, Progress, Schedule, silent, train
from pfpcli.recovery.training_batches import Labels, TrainingBatches, batch_size

#: The highest learning rate: of a network with norms, and of one without any, as ONNX files are, whose norms are folded
#: into the weights. The scales of such weights differ, and the largest ones limit the rate.
RATE, RATE_WITHOUT_NORMS = 0.01, 0.002
#: The largest batch size.
BATCH = 64


@dataclass(frozen=True)
class Distilled:
    """The result of a distillation.

    Attributes:
        epochs: the number of passes over the images; not a whole number if the last pass was not finished.
        seconds: the time, including the time before an interruption.
        before, after: the closeness to the original on the checking images.
        images: the number of training images.
    """

    epochs: float
    seconds: float
    before: float
    after: float
    images: int

    @property
    def has_helped(self) -> bool:
        """Whether the tensors have changed: they keep their old values unless the closeness rises."""
        return self.after > self.before


def distill_task(task: RecoveryTask) -> int:
    """Distill within the limits of a recovery task; returns the number of images."""

    def report(done: float, best: float) -> None:
        task.progress(round(100 * done), 100, f"% of the training, closeness {100 * best:.1f} %")

    limits = task.limits
    return distill(
        task.cut,
        task.division,
        minutes=limits.minutes,
        epochs=limits.epochs,
        device=task.device,
        seed=limits.seed,
        state=limits.state,
        progress=report,
    ).images


def distill(
    cut: Cut,
    division: Division,
    *,
    minutes: float | None,
    epochs: int | None,
    device: torch.device,
    seed: int,
    state: Path | None = None,
    progress: Progress = silent,
    rate: float | None = None,
) -> Distilled:
    """Train the cut network to match the original; its tensors change in place.

    Args:
        cut: the cut network and its slicing.
        division: the images. Without checking images, the fitting images check the result.
        minutes: the longest time; None for no limit.
        epochs: the largest number of passes over the images; None for no limit. One of the two limits is needed.
        device: the device to compute on.
        seed: the seed of the order of the images and of their random changes.
        state: the file that holds interrupted training; None to keep nothing.
        progress: receives the fraction that is done, 0 to 1, and the best closeness so far.
        rate: the highest learning rate; None chooses it by the norms of the network.
    """
    smaller, whole = cut.graph, cut.slicing.labelled.graph
    size = batch_size([whole, smaller], device, BATCH)
    batches = TrainingBatches(division.calibration, division.fitted, size, fixed=not whole.dynamic, seed=seed)
    checked, known = checking(division, whole.fixed_batch), KnownOutputs()
    loss = DistillationLoss(cut)

    def check() -> float:
        images = division.calibration.batches(whole.fixed_batch, checked)
        return closeness(whole, smaller, images, device, known)

    if rate is None:
        has_norms = any(str(node.target) in NORMS for node in whole.nodes)
        rate = RATE if has_norms else RATE_WITHOUT_NORMS
    schedule, judge = Schedule(epochs, minutes, rate), Check(check, len(checked))
    with whole.on(device):
        found = train(smaller, loss, judge, batches, schedule, device, state=state, progress=progress)
    return Distilled(found.epochs, found.seconds, found.before, found.after, batches.images)


def checking(division: Division, fixed: int | None) -> NDArray[np.int64]:
    """The checking images, or the fitting images if there are none; repeated to fill a fixed batch size."""
    indices: NDArray[np.int64] = division.checked if len(division.checked) else division.fitted
    if fixed is not None:
        indices = np.resize(indices, max(1, len(indices) // fixed) * fixed)
    return indices


class DistillationLoss:
    """The loss of a cut network against its original, L in the module's docstring.

    Args:
        cut: the cut network and its slicing.
    """

    def __init__(self, cut: Cut) -> None:
        slicing, smaller = cut
        whole, named = slicing.labelled.graph, {node.name: node for node in smaller.nodes}
        self._slicing = slicing
        self._roles = roles_of(whole)
        # node of the original -> node of the cut network
        self._features = {node: named[node.name] for node in [*sums(slicing), *features(slicing)] if node.name in named}
        self._teacher = ValueRecorder(whole, self._features)
        self._student = ValueRecorder(smaller, self._features.values())

    def __call__(self, x: Tensor, labels: Labels, generator: torch.Generator) -> Tensor:
        """The loss of one batch, float[N, ...]; labels are ignored."""
        x = mixed(altered(moved(x, generator), generator), generator)
        with torch.no_grad():
            wanted = select(real(self._teacher.run(x)), self._roles)
        found = select(real(self._student.run(x)), self._roles)
        outputs = [
            KINDS[role.kind].load().training(a, b, role.axis)
            for a, b, role in zip(found, wanted, self._roles, strict=True)
        ]
        before, now = self._teacher.values, self._student.values
        inside = [relative(now[b], self._slicing.slice(a, before[a])) for a, b in self._features.items()]
        return _mean(outputs) + (_mean(inside) if inside else 0)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()


def features(slicing: Slicing) -> list[Node]:
    """The inputs of the last layers before each output, except inputs of the network."""
    reads = {each.node: each.x for each in slicing.labelled.contractions if each.weight is not None}
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    waiting = list(slicing.labelled.graph.outputs)
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node in reads:
            found[reads[node]] = None
        else:
            waiting += node.all_input_nodes
    return [node for node in found if node.op == "call_function"]


def sums(slicing: Slicing) -> list[Node]:
    """The sums of two branches of one shape, after the clipping activation if there is one."""
    found = []
    for node in residual_blocks.sums(slicing.labelled.graph):
        after = next(iter(node.users)) if len(node.users) == 1 else node
        rule = rules.find(after.target) if after.op == "call_function" else None
        found.append(after if rule is not None and rule.clips is not None else node)
    return found

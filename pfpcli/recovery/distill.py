"""Distill: a cut network learns from the one it was cut from, on images without labels.

The loss of a batch compares what the two networks put out, what their last layers read, and the ends of their residual
branches:

    L = mean over outputs of D(output) + mean over features of R(feature)

where an output decides (float[N, classes, ...]), D is T² KL(softmax(y / T) || softmax(ŷ / T)) plus R, otherwise R; and
R is the squared distance relative to the original, |ŷ - y|² / mean |y|². The features are what is read by the last
calls with weights on the way to an output, and sums of two branches, of the channels that are left.

Sources: the divergence, Hinton, Vinyals, Dean, Distilling the Knowledge in a Neural Network, 2015; features, Romero et
al., FitNets, ICLR 2015, here without a map in between, because the channels that are left are the original's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli.activations.losses import decides, real
from pfpcli.activations.quality import compare, likeness
from pfpcli.activations.value_recorder import ValueRecorder
from pfpcli.channels import rules
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.images.calibration import Batches, Division
from pfpcli.recovery.augment import altered, mixed, moved
from pfpcli.recovery.stream import Labels, Stream, batch_size
from pfpcli.recovery.train import Check, Progress, Schedule, silent, train

#: Temperature of the divergence, and the highest learning rate.
TEMPERATURE, RATE = 4.0, 0.01
#: Images at a time, at most.
BATCH = 64


@dataclass(frozen=True)
class Distilled:
    """What distillation came to.

    Attributes:
        epochs: times that all images were seen; the last one may have been broken off.
        seconds: taken, those before an interrupt included.
        before, after: agreement with the original (see `agreement`) on `division.checking`.
        images: that were trained on.
    """

    epochs: float
    seconds: float
    before: float
    after: float
    images: int

    @property
    def has_helped(self) -> bool:
        """Whether the network was changed: what is not better is not kept."""
        return self.after > self.before


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
    rate: float = RATE,
) -> Distilled:
    """Train the cut network to do what the original does; its tensors change in place.

    Args:
        cut: the cut network and how it was made.
        division: the images it is fitted to and those that check it; where none check, the fitted ones do.
        minutes: how long, at most; None for no limit.
        epochs: times that all images are seen, at most; None for no limit. One of the two has to be there.
        device: where to compute.
        seed: of the order of the images and their changes.
        state: a file for what is to go on after an interrupt; None keeps nothing.
        progress: told the part that is done, 0 to 1, and the best agreement so far.
        rate: the highest learning rate.
    """
    smaller, whole = cut.graph, cut.slicing.labelled.graph
    size = batch_size([whole, smaller], device, BATCH)
    stream = Stream(division.calibration, division.fitted, size, fixed=not whole.dynamic, seed=seed)
    checked = checking(division, whole.fixed_batch)
    task = _Task(cut)

    def check() -> float:
        return agreement(whole, smaller, division.calibration.batches(whole.fixed_batch, checked), device)

    schedule, judged = Schedule(epochs, minutes, rate), Check(check, len(checked))
    with whole.on(device):
        found = train(smaller, task.loss, judged, stream, schedule, device, state=state, progress=progress)
    return Distilled(found.epochs, found.seconds, found.before, found.after, stream.images)


def agreement(whole: Graph, smaller: Graph, batches: Batches, device: torch.device | str = "cpu") -> float:
    """The fraction of decisions that two networks share; without decisions, 1 minus the distance of their outputs.

    Few images have few fractions, so networks that share as many are told apart by the distance of their outputs, which
    counts less than one decision.

    Args:
        whole: the original.
        smaller: the other one.
        batches: the images to ask about.
        device: where to compute.
    """
    quality = compare(whole, smaller, batches, "", device)
    return likeness(quality)[1] - min(1.0, quality.distance) / (2 * max(1, quality.n))


def checking(division: Division, fixed: int | None) -> NDArray[np.int64]:
    """Which images check a recovery, the fitted ones where there are none; repeated to fill a fixed batch."""
    indices: NDArray[np.int64] = division.checked if len(division.checked) else division.fitted
    if fixed is not None:
        indices = np.resize(indices, max(1, len(indices) // fixed) * fixed)
    return indices


class _Task:
    """The loss of a cut network against its original."""

    def __init__(self, cut: Cut) -> None:
        slicing, smaller = cut
        whole, there = slicing.labelled.graph, {node.name: node for node in smaller.nodes}
        self._slicing = slicing
        self._has_decisions = not whole.is_undecided
        # node of the original -> that of the cut network
        self._features = {node: there[node.name] for node in [*sums(slicing), *features(slicing)] if node.name in there}
        self._teacher, self._student = (
            ValueRecorder(whole, self._features),
            ValueRecorder(smaller, self._features.values()),
        )

    def loss(self, x: Tensor, labels: Labels, generator: torch.Generator) -> Tensor:
        """Of one batch, float[N, ...]; the labels are not looked at."""
        x = mixed(altered(moved(x, generator), generator), generator)
        with torch.no_grad():
            wanted = real(self._teacher.run(x))
        found = real(self._student.run(x))
        outputs = [self._divergence(a, b) for a, b in zip(found, wanted, strict=True)]
        before, now = self._teacher.values, self._student.values
        inside = [relative(now[b], self._slicing.slice(a, before[a])) for a, b in self._features.items()]
        return _mean(outputs) + (_mean(inside) if inside else 0)

    def _divergence(self, found: Tensor, wanted: Tensor) -> Tensor:
        if not (decides(wanted) and self._has_decisions):
            return relative(found, wanted)
        return divergence(found, wanted) + relative(found, wanted)


def _mean(losses: list[Tensor]) -> Tensor:
    return torch.stack(losses).mean()


def divergence(found: Tensor, wanted: Tensor) -> Tensor:
    """T² KL of the decisions of two networks, float[N, classes, ...], averaged over samples and positions."""
    here, there = (F.log_softmax(output.float() / TEMPERATURE, 1) for output in (found, wanted))
    return TEMPERATURE**2 * F.kl_div(here, there, reduction="none", log_target=True).sum(1).mean()


def relative(found: Tensor, wanted: Tensor) -> Tensor:
    """The squared distance of two tensors, relative to the second one; over the batch, so no sample divides by zero."""
    wanted = wanted.float()
    # of large maps, each is one pass; squares written out are several, and as many for the gradients
    length: Tensor = torch.linalg.vector_norm(wanted)
    return F.mse_loss(found.float(), wanted, reduction="sum") / length.square().clamp_min(1e-12)


def features(slicing: Slicing) -> list[Node]:
    """What the last calls with weights on the way to each output read, as far as it is not an input."""
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
    """Where two branches of one shape are added up, after what clips the sum, if anything does."""
    found = []
    for node in slicing.labelled.graph.nodes:
        if str(node.target) != "aten.add.Tensor":
            continue
        added = [each for each in node.args if isinstance(each, Node) and is_tensor(each)]
        if len(added) == 2 and all(each.meta["val"].shape == node.meta["val"].shape for each in added):
            after = next(iter(node.users)) if len(node.users) == 1 else node
            rule = rules.find(after.target) if after.op == "call_function" else None
            found.append(after if rule is not None and rule.clips is not None else node)
    return found

"""Linear filter ensembles: what the loss says about random sets of channels, read off by a linear model.

    L(m) = L(1) + sum over j of w_j m_j,    s_j = -w_j

m_j is 1 where channel j is there and 0 where it is silenced, at every layer that reads it. For each group on its own,
masks are drawn, the relative change of the loss is measured on a few images, and w is fitted by ridge regression.

Masks are folded into the batch dimension: one run of what comes after the gates measures many of them.
`torch.func.vmap` over the gates does that op by op, so it is right wherever the batch is in what an op reads, and where
the network fixes its size.

Source: Sandor, Pavel, Csato, Pruning CNN's with linear filter ensembles, ECAI 2020. What the paper leaves open (how
many masks, how sparse, in which units) is set below.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.gates import GatedNetwork
from pfpcli.activations.losses import divergence, real
from pfpcli.activations.task import Task
from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels.groups import Group
from pfpcli.scoring.scores import Scores

#: Images that measure the loss, at most.
IMAGES = 64
#: Share of the channels that a mask silences.
OFF = 0.2
#: Masks for each channel of a group, and for a group at least and at most.
MASKS, FEWEST, MOST = 4, 128, 1024
#: Changes of the loss beyond this percentile count as that: a few huge ones would decide the fit.
CLIP = 95.0
#: Weights of the squares of w that a fit may choose from.
RIDGES = (1.0, 10.0, 100.0)
#: A fit that explains less of the changes than this is not to be trusted.
DOUBTFUL = 0.5
#: Relative changes are of at least this loss.
_TINY = 1e-6
#: Numbers in the largest value of a run that masks share, by device: a CPU is slower from where values leave its cache.
_FOLDED = {"cpu": 1 << 21}
_FOLDED_ELSEWHERE = 1 << 25


def lfe(task: Task) -> Scores:
    """How much the loss falls because a channel is there, by a linear model of the loss of random masks.

    The loss is the cross-entropy to the labels, where there are labels that fit; else the divergence from what the
    unpruned network decides, or the squared distance where it decides nothing.
    """
    unit = task.nothing()
    graph = task.groups.labelled.graph
    read = np.unique(np.concatenate([np.r_[r.units, r.heads] for r in task.readers]))
    ensembles = [
        _Ensemble.of(task, group, np.random.default_rng((task.seed, i)))
        for i, group in enumerate(task.groups.prunable)
        if np.isin(group.units, read).all()
    ]
    needed = {node for one in ensembles for node in one.gated.needed}
    run, together = ValueRecorder(graph, needed), at_a_time(graph, needed)
    whole = 0.0
    with torch.no_grad():
        for images, labels in task.images(IMAGES):
            for start in range(0, len(images), together):
                some = slice(start, start + together)
                truth = None if labels is None else labels[some]
                outputs = real(run.run(images[some]))
                whole += float(divergence(outputs, outputs, truth))
                for one in ensembles:
                    one.measure(run.values, outputs, truth, len(images[some]))
    whole, doubtful = processes.total(whole), []
    for one in ensembles:
        change = (processes.total(one.losses) - whole) / max(whole, _TINY)
        weights, explained = fit(one.masks, np.minimum(change, np.percentile(change, CLIP)))
        unit[one.group.units] = -weights
        if explained < DOUBTFUL:
            doubtful.append(f"{one.group.name} (R² {explained:.2f})")
    if not doubtful:
        return Scores(unit)
    names = ", ".join(doubtful[:3]) + (" and others" if len(doubtful) > 3 else "")
    remark = (
        f"the linear model of criterion lfe does not hold for {len(doubtful)} of {len(ensembles)} groups: {names}; "
        "compare with another --criterion"
    )
    return Scores(unit, remarks=(remark,))


def fit(
    masks: NDArray[np.bool_], changes: NDArray[np.float64], ridges: Sequence[float] = RIDGES
) -> tuple[NDArray[np.float64], float]:
    """Ridge regression of changes of the loss on masks, with an intercept; of several, what predicts best.

    Args:
        masks: bool[T, n].
        changes: float64[T].
        ridges: weights of the squares of w; 0 is ordinary least squares.

    Returns:
        w: float64[n].
        R²: of every change predicted from the fit to all others; in sample it would be near 1 with few masks.
    """
    fits = [_fit(masks, changes, ridge) for ridge in ridges]
    return max(fits, key=lambda found: found[1])


def _fit(masks: NDArray[np.bool_], changes: NDArray[np.float64], ridge: float) -> tuple[NDArray[np.float64], float]:
    count, size = masks.shape
    design = torch.zeros(count + size, size + 1, dtype=torch.float64)
    design[:count, 0] = 1
    design[:count, 1:] = torch.from_numpy(masks)
    design[count:, 1:] = ridge**0.5 * torch.eye(size)
    target = torch.zeros(count + size, 1, dtype=torch.float64)
    target[:count, 0] = torch.from_numpy(changes)
    found = torch.linalg.lstsq(design, target).solution
    left = (target - design @ found)[:count, 0]
    # what is left of a row that took no part in the fit is what is left of it in the fit, over 1 - its leverage
    leverage = torch.linalg.qr(design).Q[:count].square().sum(1)
    errors = float((left / (1 - leverage).clamp(min=1e-6)).square().sum())
    spread = float(np.square(changes - changes.mean()).sum())
    return found[1:, 0].numpy(), 1 - errors / spread if spread > 0 else 1.0


def draw(count: int, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Masks in antithetic pairs, what one silences the other leaves: bool[count, size], count even."""
    uniform = rng.random((count // 2, size))
    return np.concatenate([uniform >= OFF, uniform < 1 - OFF])


@dataclass
class _Ensemble:
    """A group, its masks, and their losses so far.

    Attributes:
        gated: the network, with gates where the group is read.
        masks: bool[T, n].
        losses: float64[T], sums over images.
        folds: whether several masks can be in one run.
    """

    task: Task = field(repr=False)
    group: Group
    gated: GatedNetwork = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    folds: bool = True

    @classmethod
    def of(cls, task: Task, group: Group, rng: np.random.Generator) -> _Ensemble:
        owned = [unit for head in group.units if head in task.groups.owned for unit in task.groups.owned[head]]
        gated = GatedNetwork(task.groups, task.device, {*group.units.tolist(), *owned})
        count = int(np.clip(MASKS * len(group.units), FEWEST, MOST))
        return cls(task, group, gated, draw(count, len(group.units), rng), np.zeros(count))

    def measure(
        self, values: dict[Node, object], whole: list[Tensor], labels: NDArray[np.int64] | None, images: int
    ) -> None:
        """Add the losses of some images; only what comes after the gates is computed anew.

        Args:
            values: of the nodes that are needed, in the unpruned network.
            whole: its outputs.
            labels: int64[N], or None.
            images: their number N.
        """

        def loss(gates: Tensor) -> Tensor:
            self.gated.gates = gates
            return divergence(real(self.gated.rerun(values)), whole, labels)

        step = self.masks_at_a_time(images)
        for start in range(0, len(self.masks), step):
            some = slice(start, start + step)
            self.losses[some] += self._of_each(loss, self._gates(self.masks[some])).cpu().numpy()

    def masks_at_a_time(self, images: int) -> int:
        """How many masks may run together on so many images."""
        groups = self.task.groups
        # what is read through gates becomes as many values as there are masks, too
        made = [node.meta.get("val") for node in self.gated.after | self.gated.needed if node.op != "get_attr"]
        largest = max((value.numel() for value in made if isinstance(value, Tensor)), default=1)
        each = max(largest * images // groups.labelled.graph.batch, len(groups.root))  # a mask has a gate per label
        return max(1, _FOLDED.get(self.task.device.type, _FOLDED_ELSEWHERE) // each)

    def _gates(self, masks: NDArray[np.bool_]) -> Tensor:
        """The gates that silence what masks silence: float32[T, labels]; masks: bool[T, n]."""
        alive = np.stack([self.task.groups.alive(self.group.units[~mask]) for mask in masks])
        return torch.from_numpy(alive).to(self.task.device, torch.float32)

    def _of_each(self, loss: Callable[[Tensor], Tensor], gates: Tensor) -> Tensor:
        """The loss with each of some gates: float64[T], in one run if it can be; gates: float32[T, labels]."""
        if self.folds and len(gates) > 1:
            try:
                with _unsaid():
                    folded: Tensor = torch.func.vmap(loss, randomness="different")(gates)
                return folded
            except RuntimeError:  # an op that cannot be folded, or not enough memory
                self.folds = False
        return torch.stack([loss(each) for each in gates])


@contextmanager
def _unsaid() -> Iterator[None]:
    """Torch says, past Python's warnings, which ops it runs once for each mask; that is slower there, and no more."""
    functorch: Any = torch._C._functorch
    functorch._set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_warning_enabled(True)

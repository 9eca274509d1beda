"""Linear filter ensembles: a linear model of the loss of random sets of channels.

    L(m) = L(1) + sum over j of w_j m_j,    s_j = -w_j

m_j is 1 where channel j is kept and 0 where it is masked, at every layer that reads it. For each group separately,
masks are drawn, the relative change of the loss is measured on a few images, and w is fitted by ridge regression.

One run of the nodes after the gates measures many masks: `torch.func.vmap` batches the gates. It works op by op, so it
is right wherever the batch dimension of a tensor is, and where the network has a fixed batch size.

Source: Sandor, Pavel, Csato, Pruning CNN's with linear filter ensembles, ECAI 2020. The paper does not say how many
masks there are, how many channels they mask and in which unit the loss is; the constants below decide this.
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
from pfpcli.activations.gated_network import GatedNetwork
from pfpcli.activations.task import Task
from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels.groups import Group
from pfpcli.graph.role import Role
from pfpcli.outputs.losses import divergence
from pfpcli.outputs.roles import real, roles_of, select
from pfpcli.scoring.scores import Scores

#: The most images that the loss is measured on.
IMAGES = 64
#: A mask masks this fraction of the channels.
OFF = 0.2
#: Masks for each channel of a group, and the fewest and the most masks of a group.
MASKS, FEWEST, MOST = 4, 128, 1024
#: Changes of the loss are clipped at this percentile: otherwise a few huge ones would dominate the fit.
CLIP = 95.0
#: Weights of the squares of w from which a fit selects the best.
RIDGES = (1.0, 10.0, 100.0)
#: A fit with a smaller R² gets a remark.
DOUBTFUL = 0.5
#: Changes are relative to the loss, or to this where the loss is smaller.
_TINY = 1e-6
#: Most numbers in the largest tensor of a run of several masks, by device: a CPU slows down when its cache is full.
_LARGEST = {"cpu": 1 << 21}
_LARGEST_ELSEWHERE = 1 << 25


def lfe(task: Task) -> Scores:
    """Score by how much the loss falls because a channel is kept, from a linear model of the loss of random masks.

    The loss is `outputs.losses.divergence`.
    """
    unit = task.zero_scores()
    graph = task.groups.labelled.graph
    roles = roles_of(graph)
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
                outputs = select(real(run.run(images[some])), roles)
                whole += float(divergence(outputs, outputs, roles, truth))
                for one in ensembles:
                    one.measure(run.values, outputs, roles, truth, len(images[some]))
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
    """Fit changes of the loss to masks by ridge regression with an intercept, with the ridge that predicts best.

    Args:
        masks: bool[T, n].
        changes: float64[T].
        ridges: weights of the squares of w; 0 is ordinary least squares.

    Returns:
        (float64[n] w, the R² of predicting every change from a fit to all others). The R² of the fit itself would be
        near 1 with few masks.
    """
    fits = [_fit_ridge(masks, changes, ridge) for ridge in ridges]
    return max(fits, key=lambda found: found[1])


def _fit_ridge(
    masks: NDArray[np.bool_], changes: NDArray[np.float64], ridge: float
) -> tuple[NDArray[np.float64], float]:
    """Fit with one ridge; see `fit`."""
    count, size = masks.shape
    design = torch.zeros(count + size, size + 1, dtype=torch.float64)
    design[:count, 0] = 1
    design[:count, 1:] = torch.from_numpy(masks)
    design[count:, 1:] = ridge**0.5 * torch.eye(size)
    target = torch.zeros(count + size, 1, dtype=torch.float64)
    target[:count, 0] = torch.from_numpy(changes)
    found = torch.linalg.lstsq(design, target).solution
    left = (target - design @ found)[:count, 0]
    # the residual of a row that is left out of the fit is its residual in the fit over 1 - its leverage
    leverage = torch.linalg.qr(design).Q[:count].square().sum(1)
    errors = float((left / (1 - leverage).clamp(min=1e-6)).square().sum())
    spread = float(np.square(changes - changes.mean()).sum())
    return found[1:, 0].numpy(), 1 - errors / spread if spread > 0 else 1.0


def draw(count: int, size: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Draw masks in antithetic pairs, which never mask the same channel: bool[count, size]; count is even."""
    uniform = rng.random((count // 2, size))
    return np.concatenate([uniform >= OFF, uniform < 1 - OFF])


@dataclass
class _Ensemble:
    """A group, its masks, and their losses so far.

    Attributes:
        task: the network and its scoring images.
        group: the group.
        gated: the network, with gates where the group is read.
        masks: bool[T, n], False for masked channels.
        losses: float64[T], summed over images.
        batches_masks: whether one run can measure several masks.
    """

    task: Task = field(repr=False)
    group: Group
    gated: GatedNetwork = field(repr=False)
    masks: NDArray[np.bool_] = field(repr=False)
    losses: NDArray[np.float64] = field(repr=False)
    batches_masks: bool = True

    @classmethod
    def of(cls, task: Task, group: Group, rng: np.random.Generator) -> _Ensemble:
        """Draw the masks of a group; no images are added yet."""
        owned = [unit for head in group.units if head in task.groups.owned for unit in task.groups.owned[head]]
        gated = GatedNetwork(task.groups, task.device, {*group.units.tolist(), *owned})
        count = int(np.clip(MASKS * len(group.units), FEWEST, MOST))
        return cls(task, group, gated, draw(count, len(group.units), rng), np.zeros(count))

    def measure(
        self,
        values: dict[Node, object],
        whole: list[Tensor],
        roles: Sequence[Role],
        labels: NDArray[np.int64] | None,
        images: int,
    ) -> None:
        """Add the losses of some images; only the nodes after the gates are computed.

        Args:
            values: of the nodes that the gated network needs, in the original.
            whole: the outputs of the original, one for each role.
            roles: what they say.
            labels: int64[N], or None.
            images: N, the number of images.
        """

        def loss(gates: Tensor) -> Tensor:
            self.gated.gates = gates
            return divergence(select(real(self.gated.rerun(values)), roles), whole, roles, labels)

        step = self.masks_at_a_time(images)
        for start in range(0, len(self.masks), step):
            some = slice(start, start + step)
            self.losses[some] += self._of_each(loss, self._gates(self.masks[some])).cpu().numpy()

    def masks_at_a_time(self, images: int) -> int:
        """Return how many masks can run together on a number of images."""
        groups = self.task.groups
        # a tensor that is read through gates has a copy for each mask, too
        made = [node.meta.get("val") for node in self.gated.after | self.gated.needed if node.op != "get_attr"]
        largest = max((value.numel() for value in made if isinstance(value, Tensor)), default=1)
        each = max(largest * images // groups.labelled.graph.batch, len(groups.root))  # a mask has a gate per label
        return max(1, _LARGEST.get(self.task.device.type, _LARGEST_ELSEWHERE) // each)

    def _gates(self, masks: NDArray[np.bool_]) -> Tensor:
        """Return the gates of some masks: float32[T, labels]; masks: bool[T, n]."""
        alive = np.stack([self.task.groups.alive(self.group.units[~mask]) for mask in masks])
        return torch.from_numpy(alive).to(self.task.device, torch.float32)

    def _of_each(self, loss: Callable[[Tensor], Tensor], gates: Tensor) -> Tensor:
        """Return the loss with each row of gates, float64[T], in one run if possible; gates: float32[T, labels]."""
        if self.batches_masks and len(gates) > 1:
            try:
                with _without_vmap_warnings():
                    losses: Tensor = torch.func.vmap(loss, randomness="different")(gates)
                return losses
            except RuntimeError:  # an op that vmap cannot batch, or not enough memory
                self.batches_masks = False
        return torch.stack([loss(each) for each in gates])


@contextmanager
def _without_vmap_warnings() -> Iterator[None]:
    """Silence torch's own warnings that vmap runs an op once for each mask: the op is slower, and still right."""
    functorch: Any = torch._C._functorch
    functorch._set_vmap_fallback_warning_enabled(False)
    try:
        yield
    finally:
        functorch._set_vmap_fallback_warning_enabled(True)

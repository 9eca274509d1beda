"""Weight scores: a score for each single weight, by a criterion.

If several layers read with one tensor, each of its weights has one score, the largest of these layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.channels.reading_layers import Reader
from pfpcli.outputs.losses import per_sample_loss
from pfpcli.outputs.roles import real, roles_of, select
from pfpcli.scoring.criteria import WeightCriterion
from pfpcli.scoring.scores import Counter
from pfpcli.sparsity import sipp
from pfpcli.sparsity.weights import Weights, view_of


@dataclass(frozen=True)
class WeightScores:
    """The scores of all weights.

    Attributes:
        score: for each tensor the scores of its weights, in its own shape.
        largest: for each tensor and each layer that reads with it the largest shares over patches, float[G, O, J, R].
        samples: number of scoring images.
    """

    score: list[Tensor]
    largest: list[list[Tensor]]
    samples: int


def score_weights(task: Task, found: Sequence[Weights], criterion: WeightCriterion) -> WeightScores:
    """Score weights in one pass over the images, or two if the criterion needs gradients.

    The largest shares are computed for every criterion, because they bound the error of a layer.

    Args:
        task: the network and its scoring images.
        found: the tensors of weights.
        criterion: what to score by.
    """
    counted = Counter(task.batches)
    task = replace(task, batches=counted)
    with task.groups.labelled.graph.on(task.device):
        largest, mean = _shares(task, found, with_mean=criterion.score == "mean")
        shares = {"max": largest, "mean": mean}.get(criterion.score)
        if shares is not None:
            score = [_combined(each, [shares[id(reader)].tensor for reader in each.readers]) for each in found]
        elif criterion.score == "gradient":
            score = _gradients(task, found)
        else:
            score = [each.tensor.abs() for each in found]
    by_reader = [[largest[id(reader)].tensor for reader in each.readers] for each in found]
    return WeightScores(score, by_reader, counted.most)


@dataclass
class _Largest:
    """The largest shares over the images so far: float[G, O, J, R]."""

    found: Tensor

    @classmethod
    def of(cls, reader: Reader, tensor: Tensor, device: torch.device) -> _Largest:
        """Return the shares of no images: 0."""
        return cls(torch.zeros_like(reader.matrix(view_of(reader.weight, tensor.detach())).float(), device=device))

    def add(self, values: Tensor) -> None:
        """Take the maximum with the shares of some images."""
        self.found = torch.maximum(self.found, values)

    @property
    def tensor(self) -> Tensor:
        """The shares, on the CPU."""
        return self.found.cpu()


def _shares(
    task: Task, found: Sequence[Weights], *, with_mean: bool
) -> tuple[dict[int, _Largest], dict[int, _Largest]]:
    """Return for each layer, by its id, the largest shares with their maximum and with their mean over patches."""
    largest, mean = (
        {id(reader): _Largest.of(reader, each.tensor, task.device) for each in found for reader in each.readers}
        for _ in range(2)
    )

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        for columns in reader.pieces(x, weight, whole=with_mean):
            largest[id(reader)].add(sipp.weight_sensitivity(columns, "max"))
            if with_mean:
                mean[id(reader)].add(sipp.weight_sensitivity(columns, "mean"))

    task.walk(look, [reader for each in found for reader in each.readers])
    for one in (*largest.values(), *mean.values()):
        one.found = processes.largest(one.found)
    return largest, mean


def _combined(of: Weights, shares: Sequence[Tensor]) -> Tensor:
    """Return the largest shares of all layers that read with a tensor, in its shape."""
    return torch.stack([of.back(r, s) for r, s in zip(of.readers, shares, strict=True)]).amax(0)


def _gradients(task: Task, found: Sequence[Weights]) -> list[Tensor]:
    """Return |w dL/dw| of each weight, the mean over images; each image has its own gradient."""
    graph = task.groups.labelled.graph
    roles = roles_of(graph)
    leaves = {each.target: each.tensor.detach().to(task.device).requires_grad_() for each in found}
    total = [torch.zeros_like(leaf) for leaf in leaves.values()]
    count = 0
    for images, given in task.images():
        step = graph.fixed_batch or 1
        for first in range(0, len(images), step):
            at = slice(first, first + step)
            outputs = torch.func.functional_call(graph.module, leaves, (images[at],))
            losses = per_sample_loss(select(real(outputs), roles), roles, None if given is None else given[at])
            for i, loss in enumerate(losses):
                slopes = torch.autograd.grad(
                    loss, list(leaves.values()), retain_graph=i + 1 < len(losses), allow_unused=True
                )
                count += 1
                for sums, leaf, slope in zip(total, leaves.values(), slopes, strict=True):
                    if slope is not None:
                        sums += (leaf.detach() * slope).abs()
    count = processes.total(count)
    return [(processes.total(sums) / max(1, count)).cpu() for sums in total]

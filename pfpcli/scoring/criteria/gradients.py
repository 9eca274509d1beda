"""Criteria that follow the loss back through the network, and what other criteria want to know of it."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.gates import GatedNetwork
from pfpcli.activations.losses import likely_losses, per_sample_loss, real
from pfpcli.activations.task import Task
from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels import rules
from pfpcli.scoring.scores import Scores

#: Images that say how much the loss feels a layer, and the most probable decisions of each that do.
FELT, LIKELY = 128, 3


def taylor(task: Task) -> Scores:
    """How much the loss of an image changes, to first order, when a unit is taken away; the mean of absolute values.

        s_j = mean over images of | sum over all places where j is read of a dL/da |

    The sum runs over everything that goes with the unit, a head's over all its channels. It is the derivative by a gate
    that multiplies them, as in the paper; absolute values, not squares, so that it is in the unit of the loss.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equations 8 and 9.
    """
    groups = task.groups
    gated = GatedNetwork(groups, task.device)
    unit = np.zeros(len(groups.root))
    count = 0
    for images, labels in task.images():
        for i, image in enumerate(images):
            # a batch size that is fixed is filled with the one image
            batch = image.expand(groups.labelled.graph.fixed_batch or 1, *image.shape)
            truth = None if labels is None else np.full(len(batch), labels[i])
            gated.gates = torch.ones_like(gated.gates, requires_grad=True)
            loss = per_sample_loss(gated.run(batch), truth).mean()
            (slope,) = torch.autograd.grad(loss, gated.gates)
            change = np.bincount(groups.root, slope.cpu().double().numpy(), len(groups.root))
            heads = {head: change[np.union1d(owned, head)].sum() for head, owned in groups.owned.items()}
            change[[*heads]] = [*heads.values()]
            unit += np.abs(change)
            count += 1
    return Scores(processes.total(unit) / max(processes.total(count), 1))


def felt(task: Task) -> dict[Node, Tensor]:
    """How much the loss feels each output of the layers with weights: the mean square of its gradient.

    The loss is that of what the network decides itself, with the probabilities that it gives, so the squares are the
    diagonal of the Fisher matrix: half of one times a squared error is by how much the outputs diverge, to second
    order, were errors independent.

    Returns:
        call -> float64[C_out], the mean over images and positions.
    """
    graph = task.groups.labelled.graph
    # in the order of the readers, which is the same in every process
    layers = list(dict.fromkeys(reader.node for reader in task.readers if reader.has_weights))
    run = ValueRecorder(graph, layers)
    # the way back needs whatever a call has made
    together = at_a_time(graph, (node for node in graph.nodes if node.op == "call_function"))
    sums = {node: torch.zeros(node.meta["val"].shape[_made(node)], dtype=torch.float64) for node in layers}
    counts = dict.fromkeys(layers, 0)
    for images, _ in task.images(FELT):
        for some in images.split(together):
            outputs = real(run.run(some.clone().requires_grad_()))
            for node, value in run.values.items():
                counts[node] += value.numel() // value.shape[_made(node)]
            for loss in likely_losses(outputs, LIKELY):
                slopes = torch.autograd.grad(loss, [*run.values.values()], retain_graph=True, allow_unused=True)
                for node, slope in zip(run.values, slopes, strict=True):
                    squares = torch.zeros_like(run.values[node]) if slope is None else slope.square()
                    rows = squares.detach().movedim(_made(node), 0).flatten(1)
                    sums[node] += rows.sum(1, dtype=torch.float64).cpu()
    return {node: processes.total(sums[node]) / max(1, processes.total(counts[node])) for node in layers}


def _made(node: Node) -> int:
    """The dimension along which the channels lie that a call makes."""
    rule = rules.find(node.target)
    assert rule is not None
    return rule.made

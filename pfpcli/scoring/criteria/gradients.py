"""Criteria that look at gradients of the loss, and the effect of each output on the loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.gated_network import GatedNetwork
from pfpcli.activations.output_slopes import OutputSlopes
from pfpcli.activations.task import Task
from pfpcli.channels import rules
from pfpcli.outputs.losses import per_sample_loss
from pfpcli.outputs.roles import real, roles_of, select
from pfpcli.scoring.scores import Scores

#: The most images on which the effect of an output on the loss is measured, and the decisions of each image.
IMAGES, LIKELY = 128, 3


def taylor(task: Task) -> Scores:
    """Score by the mean change of the loss of an image, to first order, when a unit is dropped.

        s_j = mean over images of | sum over all places where j is read of a dL/da |

    The sum runs over all channels that are dropped with the unit. It is the derivative with respect to a gate that
    multiplies these channels, as in the paper. The paper squares it; the absolute value has the unit of the loss.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equations 8 and 9.
    """
    groups = task.groups
    roles = roles_of(groups.labelled.graph)
    gated = GatedNetwork(groups, task.device)
    unit = np.zeros(len(groups.root))
    count = 0
    for images, labels in task.images():
        for i, image in enumerate(images):
            # a network with a fixed batch size gets the same image several times
            batch = image.expand(groups.labelled.graph.fixed_batch or 1, *image.shape)
            truth = None if labels is None else np.full(len(batch), labels[i])
            gated.gates = torch.ones_like(gated.gates, requires_grad=True)
            loss = per_sample_loss(select(real(gated.run(batch)), roles), roles, truth).mean()
            (slope,) = torch.autograd.grad(loss, gated.gates)
            change = np.bincount(groups.root, slope.cpu().double().numpy(), len(groups.root))
            heads = {head: change[np.union1d(owned, head)].sum() for head, owned in groups.owned.items()}
            change[[*heads]] = [*heads.values()]
            unit += np.abs(change)
            count += 1
    return Scores(processes.total(unit) / max(processes.total(count), 1))


def output_sensitivity(task: Task) -> dict[Node, Tensor]:
    """Return the effect of each output of the layers with weights on the loss: the mean square of its gradient.

    The loss is that of the network's own decisions, with their probabilities, so the mean squares are the diagonal of
    the Fisher matrix. Half of it times the squared error of an output is the divergence of the network's outputs, to
    second order, if errors are independent.

    Returns:
        call of a layer -> float64[C_out], the mean over images and positions.
    """
    # in the order of the readers, so that all processes have the same order
    layers = list(dict.fromkeys(reader.node for reader in task.readers if reader.has_weights))
    slopes = OutputSlopes(task.groups.labelled.graph, layers, LIKELY)
    outputs = {node: node.meta["val"].shape[rules.output_dim(node)] for node in layers}
    sums = {node: torch.zeros(size, dtype=torch.float64) for node, size in outputs.items()}
    counts = dict.fromkeys(layers, 0)
    for images, _ in task.images(IMAGES):
        for squares in slopes.of(images):
            for node, each in squares.items():
                sums[node] += each.sum((0, 2), dtype=torch.float64).cpu()
                counts[node] += each.shape[0] * each.shape[2]
    return {node: processes.total(sums[node]) / max(1, processes.total(counts[node])) for node in layers}

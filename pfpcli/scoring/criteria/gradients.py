"""Criteria that look at gradients of the loss, and the effect of each output on the loss."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli import processes
from pfpcli.activations.gated_network import GatedNetwork
from pfpcli.activations.task import Task
from pfpcli.activations.value_recorder import ValueRecorder, at_a_time
from pfpcli.channels import rules
from pfpcli.outputs.losses import likely_losses, per_sample_loss
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
    graph = task.groups.labelled.graph
    roles = roles_of(graph)
    # in the order of the readers, so that all processes have the same order
    layers = list(dict.fromkeys(reader.node for reader in task.readers if reader.has_weights))
    run = ValueRecorder(graph, layers)
    # the backward pass needs the results of all calls
    together = at_a_time(graph, (node for node in graph.nodes if node.op == "call_function"))
    sums = {node: torch.zeros(node.meta["val"].shape[_made(node)], dtype=torch.float64) for node in layers}
    counts = dict.fromkeys(layers, 0)
    for images, _ in task.images(IMAGES):
        for some in images.split(together):
            outputs = select(real(run.run(some.clone().requires_grad_())), roles)
            for node, value in run.values.items():
                counts[node] += value.numel() // value.shape[_made(node)]
            for loss in likely_losses(outputs, roles, LIKELY):
                slopes = torch.autograd.grad(loss, [*run.values.values()], retain_graph=True, allow_unused=True)
                for node, slope in zip(run.values, slopes, strict=True):
                    squares = torch.zeros_like(run.values[node]) if slope is None else slope.square()
                    rows = squares.detach().movedim(_made(node), 0).flatten(1)
                    sums[node] += rows.sum(1, dtype=torch.float64).cpu()
    return {node: processes.total(sums[node]) / max(1, processes.total(counts[node])) for node in layers}


def _made(node: Node) -> int:
    """Return the channel dimension of the result of a call."""
    rule = rules.find(node.target)
    assert rule is not None
    return rule.made

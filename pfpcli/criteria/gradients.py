"""Criteria that follow the loss back through the network."""

from __future__ import annotations

import numpy as np
import torch

from pfpcli.gated import Gated
from pfpcli.loss import per_sample_loss
from pfpcli.score import Scores, Task


def taylor(task: Task) -> Scores:
    """How much the loss of an image changes, to first order, when a unit is taken away; the mean of absolute values.

        s_j = mean over images of | sum over all places where j is read of a dL/da |

    The sum runs over everything that goes with the unit, a head's over all its channels. It is the derivative by a gate
    that multiplies them, as in the paper; absolute values, not squares, so that it is in the unit of the loss.

    Source: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equations 8 and 9.
    """
    groups = task.groups
    gated = Gated(groups, task.device)
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
    return Scores(unit / max(count, 1))

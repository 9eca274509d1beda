"""Loss: what a network is held to where a criterion asks for gradients; for each sample on its own."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor
from torch.utils._pytree import tree_leaves


def per_sample_loss(outputs: object, labels: NDArray[np.int64] | None) -> Tensor:
    """The loss of each sample of a batch: float[N].

    Cross-entropy along dimension 1, the mean over the positions of a map: against the labels where there are any and
    the output is one vector for a sample, otherwise against the network's own decisions. Outputs that decide nothing
    (fewer than two numbers along dimension 1): half the mean square.

    Args:
        outputs: what the graph module returns; the first floating-point tensor among its leaves counts, float[N, ...].
        labels: int64[N], or None; where the network has no output of that number, its own decision counts.
    """
    scores = next(x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point())
    if scores.dim() < 2 or scores.shape[1] < 2:
        return scores.reshape(len(scores), -1).square().mean(1) / 2
    target = scores.detach().argmax(1)
    if labels is not None and scores.dim() == 2:
        given = torch.from_numpy(labels).to(target)
        target = torch.where((given >= 0) & (given < scores.shape[1]), given, target)
    return F.cross_entropy(scores, target, reduction="none").reshape(len(scores), -1).mean(1)

"""Closeness: how close the outputs of a cut network are to the original's, as a number that few images tell well."""

from __future__ import annotations

import math
from functools import partial

import torch

from pfpcli import processes
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Batches
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.losses import divergence
from pfpcli.outputs.roles import roles_of, run_network


def closeness(
    whole: Graph,
    smaller: Graph,
    batches: Batches,
    device: torch.device | str = "cpu",
    known: KnownOutputs | None = None,
) -> float:
    """Return exp(-D), from 0 to 1, where D is the divergence of the outputs, the mean over images and outputs.

    A share of equal decisions changes by whole images, and on few images by luck. The divergence changes with every
    probability.

    Args:
        whole: the original.
        smaller: the other network.
        batches: the images.
        device: where to compute.
        known: outputs of the original for the same batches; those that it lacks are added.
    """
    roles, known = roles_of(whole), known or KnownOutputs()
    diverged, count = 0.0, 0

    with torch.no_grad(), whole.on(device), smaller.on(device):
        for i, (images, _) in enumerate(batches):
            if processes.is_mine(images):
                x = images.to(device)
                wanted = known.of(i, partial(run_network, whole, x, roles))
                diverged += float(divergence(run_network(smaller, x, roles), wanted, roles))
                count += len(x)
    diverged, count = processes.total(diverged), processes.total(count)
    mean = diverged / max(1, count * len(roles))
    # rounding makes the divergence of equal decisions less than 0
    return math.exp(-max(0.0, mean)) if math.isfinite(mean) else 0.0

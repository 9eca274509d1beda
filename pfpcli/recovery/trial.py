"""Trial: cut a network as planned, refit it coarsely, and measure how far its outputs are from the original's.

A trial takes a fraction of the time of a recovery. Its losses are larger, but rank plans as the recovered networks do.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial

import numpy as np
import torch

from pfpcli import memory, processes
from pfpcli.channels.reading_layers import Reader
from pfpcli.cutting.cut import cut
from pfpcli.cutting.reweight import reweight
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Batches, Division
from pfpcli.outputs.known_outputs import KnownOutputs
from pfpcli.outputs.losses import distance, relative_distance
from pfpcli.outputs.roles import roles_of, run_network
from pfpcli.planning.plan import Plan
from pfpcli.recovery.call_by_call import recover_calls
from pfpcli.recovery.refit import Findings, Refit
from pfpcli.recovery.refit_problem import COARSE
from pfpcli.recovery.task import RecoveryTask, TrainingLimits

#: The most images that the network is refitted to, and that it is measured on.
FITTED, CHECKED = 16, 32


class Trials:
    """Tries plans for one network.

    The first trial chooses the lambda of each layer and measures the importance of positions. The former depends on the
    images far more than on the width, the latter on the original alone, so all other trials take the same. The outputs
    of the original are computed once (`KnownOutputs`).

    Args:
        readers: the layers that read channels.
        division: the images; some have to be checking images.
        device: where to compute.

    Attributes:
        findings: of the trials so far.
    """

    def __init__(self, readers: Iterable[Reader], division: Division, device: torch.device) -> None:
        self._readers, self._division, self._device = readers, division, device
        self._known = KnownOutputs()
        self.findings = Findings()

    def loss(self, planned: Plan) -> float:
        """Return the distance of the outputs of the network that a plan leads to, on checking images."""
        made = cut(planned.groups.labelled, planned.alive)
        if planned.is_sampled:
            reweight(made, planned, self._readers)
        task = RecoveryTask(made, self._division, self._device, TrainingLimits(None, None, 0))
        recover_calls(task, lambda pair: Refit(pair, effort=COARSE, findings=self.findings), FITTED)
        whole = planned.groups.labelled.graph
        batches = self._division.checking(whole.fixed_batch, CHECKED)
        found = output_distance(whole, made.graph, batches, self._device, self._known)
        del made, task
        memory.drop_cycles()
        return found


def output_distance(
    whole: Graph, smaller: Graph, batches: Batches, device: torch.device, known: KnownOutputs | None = None
) -> float:
    """Return the distance of the outputs of two networks (`losses.distance`), added up over the outputs.

    Args:
        whole: the original.
        smaller: the other network.
        batches: the images.
        device: where to compute.
        known: outputs of the original for the same batches; those that it lacks are added.
    """
    roles, known = roles_of(whole), known or KnownOutputs()
    sums = np.zeros((len(roles), 2))

    with torch.no_grad(), whole.on(device), smaller.on(device):
        for i, (images, _) in enumerate(batches):
            if processes.is_mine(images):
                x = images.to(device)
                wanted = known.of(i, partial(run_network, whole, x, roles))
                sums += distance(run_network(smaller, x, roles), wanted).numpy()
    return relative_distance(processes.total(sums))

"""Recover: run the recovery methods on the cut network, one after the other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pfpcli.cutting.cut import Cut
from pfpcli.images.calibration import Division
from pfpcli.jobs.step_store import StepStore, packed, unpacked
from pfpcli.progress import Console
from pfpcli.records.parts import Recovered
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.recovery.recover import recover
from pfpcli.recovery.task import RecoveryTask, TrainingLimits
from pfpcli.settings import CompressSettings
from pfpcli.settings.checks import most_epochs


@dataclass(frozen=True)
class _Remade:
    """What a method came to: its figures, and the tensors of the network as bytes."""

    found: Recovered
    tensors: bytes


def recover_network(
    made: Cut, division: Division, settings: CompressSettings, device: torch.device, store: StepStore, console: Console
) -> list[Recovered]:
    """Recover a cut network in place by the methods that were asked for; a whole network is left as it is.

    Args:
        made: the cut network and how it was made.
        division: the images that it is fitted to, and those that check it.
        settings: the methods, and the limits of training, which the cuts of a job share.
        device: where to compute.
        store: the finished steps of the job.
        console: shows a step for each method.
    """
    if not any(map(made.slicing.is_cut, made.slicing.labelled.graph.nodes)):
        return []
    return [_recover(method, made, division, settings, device, store, console) for method in settings.recover]


def _recover(
    method: str,
    made: Cut,
    division: Division,
    settings: CompressSettings,
    device: torch.device,
    store: StepStore,
    console: Console,
) -> Recovered:
    with console.step("recover") as step:
        minutes = None if settings.minutes is None else settings.minutes / settings.steps
        epochs = most_epochs(settings.epochs, settings.minutes)
        parts = method, made.graph, epochs, minutes, settings.seed, device.type
        state = store.path("training", *parts) if RECOVERIES[method].trains else None
        limits = TrainingLimits(epochs, minutes, settings.seed, state)

        def remade() -> _Remade:
            found = recover(method, RecoveryTask(made, division, device, limits, step.progress))
            return _Remade(found, packed(made.graph.module.state_dict()))

        remade_now, step.is_cached = store.value(remade, _Remade, "recover", *parts)
        found = remade_now.found
        if step.is_cached:
            made.graph.module.load_state_dict(unpacked(remade_now.tensors))
        if found.before is None or found.after is None:
            figures = "no images to check it on"
        else:
            undone = ", undone" if found.undone else ""
            figures = f"{found.metric} {100 * found.before:.1f} → {100 * found.after:.1f} %{undone}"
        step.summary = f"{method} on {found.images} images · {figures}"
    return found

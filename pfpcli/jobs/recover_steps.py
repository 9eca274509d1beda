"""Recover steps: run the recovery methods that were asked for, each as one step of a run."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import torch

from pfpcli.cutting.cut import Cut
from pfpcli.images.calibration import Division
from pfpcli.jobs import cache
from pfpcli.progress import Console
from pfpcli.records.parts import Recovered
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.recovery.recover import recover as recover_by
from pfpcli.recovery.task import RecoveryTask, TrainingLimits
from pfpcli.settings import CompressSettings
from pfpcli.settings.checks import most_epochs


def recover(
    made: Cut, division: Division, settings: CompressSettings, device: torch.device, console: Console
) -> list[Recovered]:
    """Recover a cut network by each method in turn; its tensors change in place.

    Args:
        made: the cut network and its slicing. A network that lost no channel is left alone.
        division: the images.
        settings: the methods and the limits of training.
        device: the device to compute on.
        console: shows one step for each method.
    """
    if not any(map(made.slicing.is_cut, made.slicing.labelled.graph.nodes)):
        return []
    return [_recover(method, made, division, settings, device, console) for method in settings.recover]


def _recover(
    method: str, made: Cut, division: Division, settings: CompressSettings, device: torch.device, console: Console
) -> Recovered:
    minutes = None if settings.minutes is None else settings.minutes / settings.steps
    limits = TrainingLimits(most_epochs(settings.epochs, settings.minutes), minutes, settings.seed)
    with contextlib.ExitStack() as stack:
        step = stack.enter_context(console.step("recover"))
        if RECOVERIES[method].trains:
            state = cache.training(made.graph, division, limits.epochs, limits.minutes, limits.seed)
            limits = replace(limits, state=state)
            stack.enter_context(console.resumable(state))
        found = recover_by(method, RecoveryTask(made, division, device, limits, step.progress))
        step.summary = f"{method} on {found.images} images · {_figures(found)}"
    return found


def _figures(found: Recovered) -> str:
    """The likeness before and after a method, for example `agreement 48.8 → 91.2 %`."""
    if found.before is None or found.after is None:
        return "no images to check it on"
    undone = ", undone" if found.undone else ""
    return f"{found.metric} {100 * found.before:.1f} → {100 * found.after:.1f} %{undone}"

"""Judge: measure the errors of layers and the quality of the network on images that did not score."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from pfpcli.cutting.certificate import certificate, measure
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.images.preprocess import Preprocess
from pfpcli.jobs.step_store import NOTHING, StepStore
from pfpcli.jobs.steps.score import Scored
from pfpcli.outputs.changes import Changes
from pfpcli.outputs.kinds.kind import FARTHEST
from pfpcli.outputs.quality import LOSS, compare
from pfpcli.outputs.thumbnails import picture
from pfpcli.planning.plan import Plan
from pfpcli.progress import Console, Step
from pfpcli.records.details import Behaviour
from pfpcli.records.parts import Certificate, Quality
from pfpcli.settings import ScoringSettings

#: On fewer images nothing is said about guessing.
FEWEST = 20
#: The errors of layers are measured on at most this many images.
CERTIFIED = 128


def certify_layers(
    planned: Plan, scored: Scored, settings: ScoringSettings, device: torch.device, store: StepStore, console: Console
) -> Certificate:
    """Bound the error of each layer, and measure it; store: the finished steps of the job."""
    with console.step("certify") as step:
        division = scored.division
        judging = division.judging(planned.groups.labelled.graph.fixed_batch, CERTIFIED)
        batches = (images for images, _ in step.counted(judging, min(CERTIFIED, len(division.judged))))
        (measured, images), step.is_cached = store.value(
            lambda: measure(planned, scored.readers, batches, device),
            tuple[dict[str, float], int],
            "certify",
            *(planned.alive.tobytes(), planned.scale.tobytes(), division.judged.tobytes(), device.type),
        )
        layers = certificate(
            planned, scored.readers, scored.scores, reduce=settings.reduce, delta=settings.delta, measured=measured
        )
        bounds = [row.bound for row in layers if row.bound is not None]
        telling = sum(bound < 1 for bound in bounds)
        about = f"bounds for {telling} of {len(bounds)} layers" if bounds else "no bounds"
        largest = max((row.measured or 0.0 for row in layers), default=0.0)
        step.summary = f"{about} · largest error measured {largest:.2g}, {images} {division.source}"
    return Certificate(settings.delta, images, division.source, layers)


def evaluate(
    whole: Graph, smaller: Graph, division: Division, device: torch.device, console: Console, store: StepStore = NOTHING
) -> tuple[Quality, Behaviour | None]:
    """Compare two networks; returns the quality, and what the second one does otherwise.

    Args:
        whole: the original.
        smaller: the other network.
        division: has the images that judge.
        device: where to compute.
        console: shows the step.
        store: the finished steps of the job.
    """

    def judged(step: Step) -> tuple[Quality, Behaviour | None]:
        judging = step.counted(division.judging(whole.fixed_batch), len(division.judged))
        changes = Changes(whole, division.judges.classes or ())
        quality = compare(whole, smaller, judging, division.source, device, changes)
        names = division.judged_names()
        # where a fixed batch size left images out, it is not known which image is which
        named = names if len(names) == quality.n else []
        return quality, changes.behaviour(named, _picture(division.calibration.preprocess))

    with console.step("evaluate") as step:
        (quality, behaviour), step.is_cached = store.value(
            lambda: judged(step),
            tuple[Quality, Behaviour | None],
            "evaluate",
            *(smaller, division.judged.tobytes(), division.source, division.judges.classes, device.type),
        )
        shown = f"{100 * quality.before:.1f} → " if quality.metric == "accuracy" else ""
        step.summary = f"{quality.metric} {shown}{100 * quality.after:.1f} % · {quality.n} {quality.source}"
    return quality, behaviour


def _picture(preprocess: Preprocess) -> Callable[[NDArray[np.float32]], str]:
    """Returns how an image is shown: as it was stored; an array from its lowest to its highest value."""

    def shown(image: NDArray[np.float32]) -> str:
        stored = preprocess.restored(image)
        if preprocess.arrays:
            low, high = stored.min(), stored.max()
            stored = (stored - low) * (255 / ((high - low) or 1.0))
        return picture(stored)

    return shown


def status(quality: Quality) -> tuple[str, str]:
    """The status of a run whose checks hold, and why it failed all the same.

    A network is worth nothing if it finds the same class in every image, or if it is no better than guessing: within
    one standard deviation of one over the number of classes. The original has to do better than that, and at least
    `FEWEST` images have to judge. It is worth nothing, either, if its outputs are not finite where the original's are.

    Returns:
        ("ok", "worse" or "failed", why it failed or "").
    """
    if quality.distance >= FARTHEST:
        return "failed", "its outputs are infinite or nan where the original's are not"
    if quality.classes is not None and quality.decided is not None and quality.n >= FEWEST:
        if quality.decided[1] == 1 < quality.decided[0]:
            return "failed", f"one class for all {quality.n} images"
        chance = 1 / quality.classes
        spread = (chance * (1 - chance) / quality.n) ** 0.5
        if quality.after <= chance + spread and quality.before > chance + 3 * spread:
            return "failed", f"no better than guessing: {quality.metric} {100 * quality.after:.1f} %"
    return ("worse" if quality.before - quality.after >= LOSS else "ok"), ""

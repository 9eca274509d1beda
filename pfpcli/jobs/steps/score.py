"""Score: every channel gets a score on the scoring images, or the scores are read from the cache."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pfpcli.activations.task import FITTED, Fitting, Task
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.images.calibration import Calibration, Division
from pfpcli.jobs import cache
from pfpcli.progress import Console
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.scoring.score import score
from pfpcli.scoring.scores import Scores, set_size
from pfpcli.settings import ScoringSettings


@dataclass(frozen=True)
class Scored:
    """The result of the scoring step.

    Attributes:
        criterion: one of `CRITERIA`.
        division: which images score, recover and judge.
        readers: the layers that read channels.
        scores: of all units.
        seconds: the step took.
        key: the name of the scores in the cache, "" where they are not cached.
        fitting: the fitting images, with what the criterion has kept of them; None where nothing was scored.
    """

    criterion: str
    division: Division
    readers: list[Reader]
    scores: Scores
    seconds: float
    key: str = ""
    fitting: Fitting | None = None


def score_channels(
    groups: Groups,
    calibration: Calibration,
    criterion: str,
    settings: ScoringSettings,
    device: torch.device,
    console: Console,
) -> Scored:
    """Choose the scoring images and score every channel on them."""
    with console.step("score") as step:
        found, row = readers(groups), CRITERIA[criterion]
        division = divided(calibration, found, criterion, settings)
        key = cache.key(groups, found, division, settings, row.function) if settings.cache else ""
        scores = cache.load(key) if key else None
        step.is_cached = scores is not None
        batch = groups.labelled.graph.fixed_batch
        fitting = Fitting(lambda: division.fitting(batch), min(FITTED, len(division.fitted)))
        if scores is None:
            total = len(division.scored)
            task = Task(
                groups,
                found,
                lambda: division.scoring(batch),
                device,
                settings.reduce,
                settings.seed,
                lambda done: step.progress(min(done, total), total, "images"),
                fitting,
            )
            scores = score(criterion, task)
            if key:
                cache.save(key, scores)
        how = f", {settings.reduce} over the kernel" if scores.layers else ""
        step.summary = f"{scores.samples or 'no'} images · criterion {criterion}{how}"
    return Scored(criterion, division, found, scores, round(step.seconds, 3), key, fitting)


def divided(calibration: Calibration, found: list[Reader], criterion: str, settings: ScoringSettings) -> Division:
    """Divide the images by purpose, with as many scoring images as a criterion asks for."""
    needed = CRITERIA[criterion].samples or set_size(found, settings.delta)
    return calibration.divide(needed, settings.samples)

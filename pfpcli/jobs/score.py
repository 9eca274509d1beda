"""`pfp score`: score the channels of a model. Nothing is cut."""

from __future__ import annotations

import numpy as np

from pfpcli.channels.groups import Groups
from pfpcli.jobs import warnings
from pfpcli.jobs.recorded import model_row
from pfpcli.jobs.steps.open import find_device, open_network, resources
from pfpcli.jobs.steps.score import Scored, score_channels
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.progress import Console
from pfpcli.records.ranking import GroupRanked, LayerRanked, Ranking
from pfpcli.settings import ScoreSettings


def score(settings: ScoreSettings, console: Console) -> Ranking:
    """Score the channels of a model.

    Raises:
        PfpError: it could not be done.
    """
    device = find_device(settings.device)
    with resources(settings.threads):
        model, calibration, groups = open_network(settings, console)
        scored = score_channels(groups, calibration, settings.criterion, settings, device, console)
    warnings.warn(console, scored.scores.remarks)
    return _ranking(model, groups, scored, settings)


def _ranking(model: LoadedModel, groups: Groups, scored: Scored, settings: ScoreSettings) -> Ranking:
    layers: dict[str, np.ndarray] = {}
    for layer in scored.scores.layers:
        if layer.has_weights:  # a layer that is used several times has the largest of its sensitivities
            layers[layer.name] = np.maximum(layer.channels, layers.get(layer.name, 0))
    seen = [(group.name, scored.scores.of(group)) for group in groups.prunable]
    return Ranking(
        model=model_row(model, scored.division.calibration.size),
        criterion=settings.criterion,
        reduce=settings.reduce,
        samples=scored.scores.samples,
        calibration=scored.division.recorded(),
        layers=[LayerRanked(name, values.tolist()) for name, values in layers.items()],
        groups=[GroupRanked(name, values.tolist()) for name, values in seen if not np.isnan(values).any()],
        warnings=list(scored.scores.remarks),
    )

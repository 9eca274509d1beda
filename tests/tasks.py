"""Scoring in tests: a criterion on tensors, without folders of images."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import readers
from pfpcli.scoring.score import score
from pfpcli.scoring.scores import Scores


def task(groups: Groups, batches: Iterable[Tensor], labels: Tensor | None = None, **settings: object) -> Task:
    """What a criterion works with; labels: int64[all images], in the order of the batches."""
    batches = list(batches)
    sizes = [len(x) for x in batches]
    parts = [None] * len(batches) if labels is None else [part.numpy() for part in labels.split(sizes)]
    pairs = list(zip(batches, parts, strict=True))
    return Task(groups, readers(groups), lambda: pairs, torch.device("cpu"), **settings)  # type: ignore[arg-type]


def scores(groups: Groups, batches: Iterable[Tensor], criterion: str = "pfp", **settings: object) -> Scores:
    """The scores of a criterion."""
    return score(criterion, task(groups, batches, **settings))  # type: ignore[arg-type]

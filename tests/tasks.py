"""Scoring in tests: small networks, and a criterion on tensors without folders of images."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

import traced
from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.graph.trace import trace
from pfpcli.scoring.score import score
from pfpcli.scoring.scores import Scores
from zoo import ZOO


def task(groups: Groups, batches: Iterable[Tensor], labels: Tensor | None = None, **settings: object) -> Task:
    """Return the input of a criterion; labels: int64[all images], in the order of the batches."""
    batches = list(batches)
    sizes = [len(x) for x in batches]
    parts = [None] * len(batches) if labels is None else [part.numpy() for part in labels.split(sizes)]
    pairs = list(zip(batches, parts, strict=True))
    return Task(groups, readers(groups), lambda: pairs, torch.device("cpu"), **settings)  # type: ignore[arg-type]


def scores(groups: Groups, batches: Iterable[Tensor], criterion: str = "pfp", **settings: object) -> Scores:
    """The scores of a criterion."""
    return score(criterion, task(groups, batches, **settings))  # type: ignore[arg-type]


def grouped(module: nn.Module, *example: Tensor) -> Groups:
    return group(label(trace(module.eval(), example)))


def of_zoo(name: str) -> tuple[Groups, Tensor]:
    return traced.grouped(name), ZOO[name].example(batch=5, seed=1)[0]


def scored(criterion: str, groups: Groups, *batches: Tensor, labels: Tensor | None = None, seed: int = 0) -> Scores:
    return score(criterion, task(groups, batches, labels, seed=seed))


def linear(*weights: list[list[float]], between: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Linear layers with these weights."""
    layers: list[nn.Module] = []
    for rows in weights:
        layer = nn.Linear(len(rows[0]), len(rows), bias=False)
        layer.weight.data = torch.tensor(rows)
        layers += [layer, between()]
    return nn.Sequential(*layers[:-1])


def first(groups: Groups, scores: Scores) -> list[float]:
    """The scores of the first group that may be pruned, rounded."""
    return scores.of(groups.prunable[0]).round(5).tolist()

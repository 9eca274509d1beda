"""Steps of `pfp sparsify` that are its own: weights are scored and chosen, the network is thinned."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from pfpcli.activations.task import Task
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import readers
from pfpcli.cutting.cut import Cut, cut
from pfpcli.cutting.verify import cut_vs_sparse
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration
from pfpcli.jobs import steps
from pfpcli.jobs.outcome import Weighed
from pfpcli.planning.plan import Plan
from pfpcli.progress import Console
from pfpcli.scoring.criteria import WEIGHT_CRITERIA
from pfpcli.scoring.scores import set_size
from pfpcli.settings import Sparsity
from pfpcli.sparsity import sparse
from pfpcli.sparsity.sparse import Chosen
from pfpcli.sparsity.weights import amount_of, weights_of


def weigh(
    groups: Groups, calibration: Calibration, settings: Sparsity, device: torch.device, console: Console
) -> Weighed:
    """Choose the images and score every weight on them; a budget out of reach is refused before."""
    with console.step("score") as step:
        graph, found = groups.labelled.graph, readers(groups)
        weights = weights_of(groups, found, settings.freeze)
        amount = amount_of(graph, weights, settings.keep)
        division = calibration.divide(set_size(found, settings.delta), settings.samples)
        total = len(division.scored)
        task = Task(
            groups,
            found,
            lambda: division.scoring(graph.fixed_batch),
            device,
            progress=lambda done: step.progress(done, total, "images"),
        )
        seen = sparse.look(task, weights, WEIGHT_CRITERIA[settings.criterion])
        step.summary = f"{seen.samples} images · criterion {settings.criterion} · {len(weights)} tensors of weights"
    return Weighed(division, found, weights, amount, seen)


def choose_weights(weighed: Weighed, settings: Sparsity, console: Console) -> list[Chosen]:
    """Decide which weights stay."""
    with console.step("choose") as step:
        criterion, budget = WEIGHT_CRITERIA[settings.criterion], weighed.amount.budget
        chosen = sparse.choose(weighed.weights, weighed.seen, criterion, budget, settings.delta, settings.seed)
        kept = sum(
            int((each.tensor * one.factor != 0).sum()) for each, one in zip(weighed.weights, chosen, strict=True)
        )
        step.summary = f"{weighed.amount.present - weighed.amount.fixed:,} → {kept:,} weights"
    return chosen


def thin_graph(
    groups: Groups, weighed: Weighed, chosen: list[Chosen], console: Console
) -> tuple[Cut, NDArray[np.bool_]]:
    """The network with zeros in place, and bool[labels], its dead units."""
    with console.step("zero") as step:
        labelled, alive = groups.labelled, groups.alive(np.zeros(0, np.int64))
        thinned = cut(labelled, alive)
        sparse.thin(thinned.graph, thinned.slicing, weighed.weights, chosen)
        dead = sparse.dead_units(groups, weighed.readers, thinned.graph)
        step.summary = f"{sparse.channels(groups, dead)} channels that nothing reads any more"
    return thinned, dead


def cut_dead(
    thinned: Graph,
    planned: Plan,
    weighed: Weighed,
    chosen: list[Chosen],
    console: Console,
) -> tuple[Cut, float]:
    """Cut the dead channels off; returns the cut network and its difference to the whole one."""
    made = steps.cut_graph(planned, console)
    with console.step("verify") as step:
        sparse.thin(made.graph, made.slicing, weighed.weights, chosen)
        difference = cut_vs_sparse(thinned, made.graph, weighed.division.samples(made.graph.batch))
        steps.check_costs(planned, made.graph)
        step.summary = f"cut ≡ masked (max {difference:.0e}) · predicted = counted"
    return made, difference


def measure_errors(
    groups: Groups, weighed: Weighed, chosen: list[Chosen], device: torch.device, console: Console
) -> list[float]:
    """Measure the error of every layer on the images that judge."""
    with console.step("errors") as step:
        division, total = weighed.division, len(weighed.division.judged)
        task = Task(
            groups,
            weighed.readers,
            lambda: division.judging(groups.labelled.graph.fixed_batch),
            device,
            progress=lambda done: step.progress(done, total, "images"),
        )
        found = sparse.errors(task, weighed.weights, chosen)
        step.summary = f"{total} {division.source} · largest of a layer {max(found):.3g}"
    return found


def deflate(before: Path, after: Path) -> tuple[int, int]:
    """Sizes of two files after zlib's deflate, level 9, which is what a zip file makes of them."""
    return len(zlib.compress(before.read_bytes(), 9)), len(zlib.compress(after.read_bytes(), 9))

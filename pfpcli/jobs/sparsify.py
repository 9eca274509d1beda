"""`pfp sparsify`: set single weights of a model to zero and write a run folder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.task import Task
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.cutting.cut import Cut, cut
from pfpcli.cutting.verify import TOLERANCE, cut_vs_sparse
from pfpcli.graph.graph import Graph, fetch
from pfpcli.images.calibration import Calibration, Division
from pfpcli.jobs import warnings
from pfpcli.jobs.advice import after_sparsifying
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import group_rows, model_row, run_fields
from pfpcli.jobs.step_store import StepStore, open_store, packed, unpacked
from pfpcli.jobs.steps.cut import check_costs, cut_network, write_plan
from pfpcli.jobs.steps.export import ExportedFiles, OnnxWriter, export_files, mark_failed
from pfpcli.jobs.steps.judge import evaluate, status
from pfpcli.jobs.steps.open import find_device, open_network, resources
from pfpcli.jobs.steps.record import write_record
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE
from pfpcli.planning.plan import Plan
from pfpcli.planning.planner import without
from pfpcli.progress import Console
from pfpcli.records.details import Details
from pfpcli.records.folders import FILES, run_folder
from pfpcli.records.parts import Filling, Quality, SparseLayer, Verification
from pfpcli.records.runs import SparseRun
from pfpcli.records.started import state_folder
from pfpcli.scoring.criteria import WEIGHT_CRITERIA
from pfpcli.scoring.scores import set_size
from pfpcli.settings import SparsifySettings
from pfpcli.sparsity.choose import Chosen, choose
from pfpcli.sparsity.weight_scores import WeightScores, score_weights
from pfpcli.sparsity.weights import Amount, Weights, amount_of, nonzeros, weights_of
from pfpcli.sparsity.zeroing import dead_channels, dead_units, layer_errors, zero_weights


@dataclass(frozen=True)
class Scored:
    """The result of the scoring step.

    Attributes:
        division: the images.
        readers: the reading layers.
        weights: the tensors of weights.
        amount: the budget.
        seen: the scores.
        store: the finished steps of the job.
    """

    division: Division
    readers: list[Reader]
    weights: list[Weights]
    amount: Amount
    seen: WeightScores
    store: StepStore


@dataclass(frozen=True)
class Outcome:
    """The results of all steps.

    Attributes:
        chosen: what becomes of each tensor of weights.
        dead: number of channels that no layer reads any more.
        planned: the plan without the dead channels, None where they are not cut.
        made: the network with zeros in place, without the channels that were cut.
        errors: measured error of the layers of each tensor.
        deflated: sizes of the ONNX files before and after, deflated.
    """

    settings: SparsifySettings
    device: torch.device
    model: LoadedModel
    groups: Groups
    scored: Scored
    chosen: list[Chosen]
    dead: int
    planned: Plan | None
    made: Cut
    errors: list[float]
    quality: Quality
    verification: Verification
    exported: ExportedFiles
    deflated: tuple[int, int]


def sparsify(settings: SparsifySettings, console: Console) -> Finished[SparseRun]:
    """Set single weights of a model to zero and write a run folder.

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = find_device(settings.device)
    with run_folder(settings.out, settings.name) as folder, resources(settings.threads) as scratch:
        model, calibration, groups = open_network(settings, console)
        scored = _score_weights(model, groups, calibration, settings, device, console)
        division, store = scored.division, scored.store
        chosen = _choose_weights(scored, settings, console)
        made, dead = _zero_weights(groups, scored, chosen, console)
        planned, difference = None, None
        if settings.cut_dead:
            planned = without(groups, dead)
            made, difference = _cut_dead(made.graph, planned, scored, chosen, console)
            write_plan(planned, made, readers(groups), folder.path)
        errors = _measure_errors(groups, scored, chosen, device, console)
        quality, behaviour = evaluate(groups.labelled.graph, made.graph, division, device, console, store)
        processes.finish()
        writer = OnnxWriter(model, groups.labelled.graph, division.samples, scratch, store)
        exported = export_files(model, made, writer, folder.path, console, store)
        deflated = _deflated(scratch / FILES["onnx"]), _deflated(folder.path / FILES["onnx"])
        if status(quality)[0] == "failed":
            exported = mark_failed(exported, folder.path)
        tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": ONNX_TOLERANCE}
        verification = Verification(difference, exported.onnx_vs_torch, exported.model_pt, tolerances)
        outcome = Outcome(
            settings, device, model, groups, scored, chosen, dead_channels(groups, dead), planned, made, errors,
            quality, verification, exported, deflated,
        )  # fmt: skip
        warnings.warn(console, _warnings(outcome))
        run = _record(outcome, console)
        write_record(run, Details(behaviour=behaviour), folder.path)
    store.forget()
    return Finished(run, folder.name, exported.module)


def _score_weights(
    model: LoadedModel,
    groups: Groups,
    calibration: Calibration,
    settings: SparsifySettings,
    device: torch.device,
    console: Console,
) -> Scored:
    """Choose the scoring images and score every weight on them; a budget out of reach is refused before."""
    graph, found = groups.labelled.graph, readers(groups)
    weights = weights_of(groups, found, settings.freeze)
    amount = amount_of(graph, weights, settings.keep)
    division = calibration.divide(set_size(found, settings.delta), settings.samples)
    stored_in = state_folder("sparsify", settings.folder, settings.recorded())
    store = open_store(stored_in, model, graph, division, console)
    with console.step("score") as step:
        total = len(division.scored)
        task = Task(
            groups,
            found,
            lambda: division.scoring(graph.fixed_batch),
            device,
            progress=lambda done: step.progress(done, total, "images"),
        )

        def scored() -> bytes:
            return packed(vars(score_weights(task, weights, WEIGHT_CRITERIA[settings.criterion])))

        told = settings.criterion, settings.delta, (settings.freeze, settings.where, settings.exact_only), device.type
        content, step.is_cached = store.value(scored, bytes, "score", *told)
        seen = WeightScores(**unpacked(content))
        step.summary = f"{seen.samples} images · criterion {settings.criterion} · {len(weights)} tensors of weights"
    return Scored(division, found, weights, amount, seen, store)


def _choose_weights(scored: Scored, settings: SparsifySettings, console: Console) -> list[Chosen]:
    """Choose the weights that are kept."""
    with console.step("choose") as step:
        criterion, amount = WEIGHT_CRITERIA[settings.criterion], scored.amount
        chosen = choose(scored.weights, scored.seen, criterion, amount.budget, settings.delta, settings.seed)
        kept = sum(int((each.tensor * one.factor != 0).sum()) for each, one in zip(scored.weights, chosen, strict=True))
        step.summary = f"{amount.present - amount.fixed:,} → {kept:,} weights"
    return chosen


def _zero_weights(
    groups: Groups, scored: Scored, chosen: list[Chosen], console: Console
) -> tuple[Cut, NDArray[np.bool_]]:
    """The whole network with zeros in place, and bool[labels], its dead units."""
    with console.step("zero") as step:
        made = cut(groups.labelled, groups.alive(np.zeros(0, np.int64)))
        zero_weights(made.graph, made.slicing, scored.weights, chosen)
        dead = dead_units(groups, scored.readers, made.graph)
        step.summary = f"{dead_channels(groups, dead)} channels that nothing reads any more"
    return made, dead


def _cut_dead(
    zeroed: Graph, planned: Plan, scored: Scored, chosen: list[Chosen], console: Console
) -> tuple[Cut, float]:
    """Cut the dead channels; returns the cut network and its difference to the one with all channels."""
    made = cut_network(planned, console)
    with console.step("verify") as step:
        zero_weights(made.graph, made.slicing, scored.weights, chosen)
        difference = cut_vs_sparse(zeroed, made.graph, scored.division.samples(made.graph.batch))
        check_costs(planned, made.graph)
        step.summary = f"cut ≡ masked (max {difference:.0e}) · predicted = counted"
    return made, difference


def _measure_errors(
    groups: Groups, scored: Scored, chosen: list[Chosen], device: torch.device, console: Console
) -> list[float]:
    """Measure the error of every layer on the images that judge."""
    with console.step("errors") as step:
        division, total = scored.division, len(scored.division.judged)
        task = Task(
            groups,
            scored.readers,
            lambda: division.judging(groups.labelled.graph.fixed_batch),
            device,
            progress=lambda done: step.progress(done, total, "images"),
        )
        pairs = zip(scored.weights, chosen, strict=True)
        parts = [(each.tensor * one.factor).detach().cpu().double().numpy().tobytes() for each, one in pairs]
        found, step.is_cached = scored.store.value(
            lambda: layer_errors(task, scored.weights, chosen), list[float], "errors", *parts, device.type
        )
        step.summary = f"{total} {division.source} · largest of a layer {max(found):.3g}"
    return found


def _deflated(file: Path) -> int:
    """The size of a file after zlib's deflate, level 9, which a zip file uses."""
    return len(zlib.compress(file.read_bytes(), 9))


def _record(outcome: Outcome, console: Console) -> SparseRun:
    """The record of a removal of single weights."""
    settings, scored, exported = outcome.settings, outcome.scored, outcome.exported
    graph, smaller, amount = outcome.groups.labelled.graph, outcome.made.graph, scored.amount
    filled, sizes, deflated = nonzeros(smaller), exported.file_bytes, outcome.deflated
    before, after = count(graph), count(smaller)
    cut_channels = 0
    if outcome.planned is not None:
        cut_channels = sum(row.size - row.kept for row in group_rows(outcome.planned))
    rows = []
    for each, one, error in zip(scored.weights, outcome.chosen, outcome.errors, strict=True):
        left: Tensor = fetch(smaller.module, each.target)
        pair = (int((each.tensor != 0).sum()), int((left != 0).sum()))
        rows.append(SparseLayer(each.name, each.tensor.numel(), pair, one.bound, error))
    return SparseRun(
        **run_fields(
            settings,
            outcome.groups,
            scored.division,
            outcome.quality,
            outcome.verification,
            exported,
            outcome.device,
            console,
            status(outcome.quality),
        ),
        model=model_row(outcome.model, scored.division.calibration.size),
        requested={"keep": settings.keep},
        achieved={"keep": round(filled / amount.total, 6)},
        before=Filling(before.params, amount.present, before.macs, sizes[0], deflated[0]),
        after=Filling(after.params, filled, after.macs, sizes[1], deflated[1]),
        scoring={
            "criterion": settings.criterion,
            "form": WEIGHT_CRITERIA[settings.criterion].form,
            "delta": settings.delta,
            "samples": scored.seen.samples,
        },
        dead={"channels": outcome.dead, "cut": cut_channels},
        layers=rows,
        advice=after_sparsifying(outcome.quality),
    )


def _warnings(outcome: Outcome) -> Iterator[str]:
    """What a user should know about a removal of single weights; "" where there is nothing to say."""
    division, graph = outcome.scored.division, outcome.groups.labelled.graph
    yield warnings.wrong_preprocessing(division, outcome.quality)
    yield warnings.unfit_labels(division, outcome.quality)
    yield warnings.few_samples(division, outcome.scored.readers, outcome.settings.delta)
    yield warnings.optimistic(division)
    yield warnings.empty_layers(outcome.scored.weights, outcome.chosen)
    yield warnings.stops(outcome.model, outcome.exported, graph)
    yield warnings.fixed_batch(graph)
    yield warnings.unused_parameters(outcome.model, graph)
    yield warnings.exported_anew(outcome.exported)
    yield warnings.skipped_images(division)

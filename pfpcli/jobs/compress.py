"""`pfp compress`: prune a model to a budget and write a run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pfpcli import processes
from pfpcli.amounts import COUNTED
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.cutting.verify import TOLERANCE
from pfpcli.jobs import advice, warnings
from pfpcli.jobs.detailed import group_curves, group_scores
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import (
    cost_row,
    group_rows,
    layer_rows,
    model_row,
    requested_row,
    run_fields,
    scoring_fields,
    speed_up_row,
)
from pfpcli.jobs.steps.budget import MEASURED_WITHIN
from pfpcli.jobs.steps.cut import write_plan
from pfpcli.jobs.steps.export import ExportedFiles, export_files, mark_failed, measure_latency
from pfpcli.jobs.steps.gate import Metric, gated, load_metric, measure_metric
from pfpcli.jobs.steps.judge import certify_layers, evaluate, status
from pfpcli.jobs.steps.network import Maker, Network, Prepared, made_as_planned, prepare
from pfpcli.jobs.steps.open import find_device, resources
from pfpcli.jobs.steps.precision import write_precisions
from pfpcli.jobs.steps.record import write_record
from pfpcli.jobs.steps.replay import everything, replay
from pfpcli.jobs.steps.robustness import measure_robustness
from pfpcli.jobs.steps.search import by_metric, check_unit, search
from pfpcli.latency.files import Latency, speed_up
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE
from pfpcli.planning.outlook import keep_for
from pfpcli.progress import Console
from pfpcli.records.details import Behaviour, Details
from pfpcli.records.folders import run_folder
from pfpcli.records.parts import Certificate, Quality, UserMetric, Verification
from pfpcli.records.precision import Precision
from pfpcli.records.robustness import Robustness
from pfpcli.records.runs import Run
from pfpcli.records.searched import Search
from pfpcli.records.sources import Source, of_files
from pfpcli.records.started import state_folder
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.settings import CompressSettings


@dataclass(frozen=True)
class Outcome:
    """The results of all steps; timed: latency before and after, of `batch` inputs at a time; verdict: as `gated`."""

    ready: Prepared
    network: Network
    certificate: Certificate
    quality: Quality
    verification: Verification
    exported: ExportedFiles
    timed: tuple[Latency, Latency]
    batch: int
    metric: UserMetric | None
    verdict: tuple[str, str]
    search: Search | None = None
    precisions: list[Precision] = field(default_factory=list)
    robust: Robustness | None = None


def compress(settings: CompressSettings, console: Console) -> Finished[Run]:
    """Compress a model and write a run folder.

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = find_device(settings.device)
    measured = load_metric(settings.metric)
    replayed = None if settings.plan is None else PlanFile.read(settings.plan)
    with run_folder(settings.out, settings.name) as folder, resources(settings.threads) as scratch:
        stored_in = state_folder("compress", settings.folder, settings.recorded())
        ready = prepare(settings, device, scratch, stored_in, console)
        check_unit(ready, settings.max_drop, measured)
        searched = None
        if replayed is not None and settings.plan is not None:
            planned = replay(replayed, ready.groups, ready.scored.readers, settings.plan.name, console)
            network = made_as_planned(ready, planned, console)
            ready = replace(ready, budget=planned.plan.budget)
        elif settings.max_drop is not None and settings.is_searched:
            judge = None if measured is None else by_metric(ready, measured, str(settings.metric), scratch)
            searched = search(ready, Maker(ready), judge, settings.max_drop, ready.budget, console)
            network, ready = searched.network, searched.ready
        elif settings.is_whole:
            network = made_as_planned(ready, everything(ready.groups), console)
        else:
            network = Maker(ready)(ready.budget, console)
        found = None if searched is None else searched.search
        sources = of_files(settings.model, settings.plan)
        run, exported = write_run(ready, network, measured, folder.path, console, found, sources)
    ready.store.forget()
    return Finished(run, folder.name, exported.module)


def write_run(
    ready: Prepared,
    network: Network,
    measured: Metric | None,
    folder: Path,
    console: Console,
    search: Search | None = None,
    sources: Sequence[Source] = (),
) -> tuple[Run, ExportedFiles]:
    """Judge a network and write all files of its run.

    Args:
        ready: what it was made of.
        network: the network.
        measured: the metric of the user, or None.
        folder: the run folder.
        console: shows the steps.
        search: how it was found; None where it was not searched.
        sources: what it was made from beside the model.
    """
    settings, device, division, made = ready.settings, ready.device, ready.division, network.made
    plan = network.planned.plan
    certificate = certify_layers(plan, ready.scored, settings, device, ready.store, console)
    quality, behaviour = evaluate(ready.groups.labelled.graph, made.graph, division, device, console, ready.store)
    robust = measure_robustness(ready, network, quality, console) if settings.robustness else None
    processes.finish()
    write_plan(plan, made, ready.scored.readers, folder)
    exported = export_files(ready.model, made, ready.writer, folder, console, ready.store)
    timed, batch = measure_latency(made.graph, division, exported, settings, console)
    metric = measure_metric(measured, settings.metric, exported, folder, division, console, store=ready.store)
    told = None if search is None else search.told
    verdict = gated(status(quality), quality, metric, settings.max_drop, told)
    precisions: list[Precision] = []
    if verdict[0] == "failed":
        exported = mark_failed(exported, folder)
    else:
        exported, precisions = write_precisions(ready, network, exported, quality, measured, folder, console)
    tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": ONNX_TOLERANCE}
    verification = Verification(network.difference, exported.onnx_vs_torch, exported.model_pt, tolerances)
    outcome = Outcome(
        ready, network, certificate, quality, verification, exported, timed, batch, metric, verdict, search,
        precisions, robust,
    )  # fmt: skip
    warnings.warn(console, _warnings(outcome))
    run = replace(_record(outcome, console), sources=list(sources))
    write_record(run, _details(outcome, behaviour), folder)
    return run, exported


def _record(outcome: Outcome, console: Console) -> Run:
    """The record of a compression."""
    ready, network = outcome.ready, outcome.network
    settings, plan, scored = ready.settings, network.planned.plan, ready.scored
    sizes, timed = outcome.exported.file_bytes, outcome.timed
    return Run(
        **run_fields(
            settings,
            ready.groups,
            scored.division,
            outcome.quality,
            outcome.verification,
            outcome.exported,
            ready.device,
            console,
            outcome.verdict,
        ),
        model=model_row(ready.model, scored.division.calibration.size),
        requested=requested_row(ready),
        achieved=_achieved(outcome),
        before=cost_row(plan.before, sizes[0], timed[0]),
        after=cost_row(plan.after, sizes[1], timed[1]),
        certificate=outcome.certificate,
        recovery=network.recovered,
        scoring=scoring_fields(settings, scored, network.planned),
        latency={
            "threads": settings.threads or torch.get_num_threads(),
            "runs": timed[0].runs,
            "batch": outcome.batch,
            "speed_up": speed_up_row(speed_up(*timed)),
        },
        layers=layer_rows(network.made.slicing),
        groups=group_rows(plan),
        advice=_advice(outcome),
        metric=outcome.metric,
        search=outcome.search,
        precisions=outcome.precisions,
        robustness=outcome.robust,
    )


def _achieved(outcome: Outcome) -> dict[str, Any]:
    """What came out: of the plan, or of the file where that is what counts."""
    ready, plan = outcome.ready, outcome.network.planned.plan
    of, share = plan.budget.of, ready.budget.keep if ready.target is None else ready.target[1]
    if not COUNTED[of].is_measured or ready.settings.latency_table is not None:
        return {"keep": round(plan.achieved, 6), "exact": plan.is_met}
    sizes, (before, after) = outcome.exported.file_bytes, outcome.timed
    kept = sizes[1] / sizes[0] if of == "size" else after.part_of(before)
    if ready.settings.timed_in != "float32":
        shares = [each.share for each in outcome.precisions if each.share is not None]
        kept = shares[0] if shares else outcome.network.planned.measured or plan.achieved
    # a search has no share that it could miss
    is_exact = outcome.search is not None or abs(kept - share) <= MEASURED_WITHIN * share
    return {"keep": round(kept, 6), "exact": is_exact}


def _details(outcome: Outcome, behaviour: Behaviour | None) -> Details:
    """What the page of the run shows beyond its record."""
    planned, scores = outcome.network.planned, outcome.ready.scored.scores
    return Details(group_scores(planned.plan, scores), group_curves(planned.plan, scores, planned.curves), behaviour)


def _advice(outcome: Outcome) -> str:
    """What helps a network whose quality fell; "" for all others."""
    ready, quality, planned = outcome.ready, outcome.quality, outcome.network.planned
    settings = ready.settings
    if status(quality)[0] == "ok" or (outcome.search is not None and outcome.verdict[0] == "ok"):
        return ""
    scores, budget = ready.scored.scores, planned.plan.budget
    keep = keep_for(advice.share_to_keep(quality), ready.groups, scores, budget, planned.curves)
    has_trained = any(RECOVERIES[name].trains for name in settings.recover)
    division, criterion = ready.division, settings.criterion
    return advice.after_pruning(quality, keep, division, criterion=criterion, has_trained=has_trained)


def _warnings(outcome: Outcome) -> Iterator[str]:
    """What a user should know about a compression; "" where there is nothing to say."""
    ready = outcome.ready
    scored, graph = ready.scored, ready.groups.labelled.graph
    yield warnings.wrong_preprocessing(scored.division, outcome.quality)
    yield warnings.unfit_labels(scored.division, outcome.quality)
    yield from warnings.of_plan(ready.groups, scored, ready.settings.delta)
    yield warnings.budget_missed(requested_row(ready), _achieved(outcome))
    yield warnings.optimistic(scored.division)
    yield warnings.no_promise(outcome.search)
    yield warnings.damaged_by_quality(outcome.metric, outcome.robust)
    yield warnings.stops(ready.model, outcome.exported, graph)
    yield warnings.fixed_batch(graph)
    yield warnings.unused_parameters(ready.model, graph)
    yield warnings.exported_anew(outcome.exported)
    yield warnings.skipped_images(scored.division)
    if not ready.settings.is_whole:
        yield warnings.no_faster(speed_up(*outcome.timed), layer_rows(outcome.network.made.slicing))
    for each in outcome.precisions:
        yield warnings.not_converted(each)
        yield warnings.precision_gains_nothing(each, outcome.precisions[0])
        yield warnings.precision_loses(each, outcome.quality)
        yield warnings.precision_beyond_gate(each, outcome.quality, outcome.metric, ready.settings.max_drop)

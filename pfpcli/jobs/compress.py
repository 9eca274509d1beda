"""`pfp compress`: prune a model to a budget and write a run folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from pfpcli import processes
from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import Cut
from pfpcli.cutting.reweight import reweight
from pfpcli.cutting.verify import TOLERANCE
from pfpcli.exporting.latency import Latency
from pfpcli.jobs import advice, warnings
from pfpcli.jobs.detailed import group_curves, group_scores
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import cost_row, group_rows, layer_rows, model_row, run_fields
from pfpcli.jobs.steps.cut import cut_network, verify_cut, write_plan
from pfpcli.jobs.steps.export import ExportedFiles, export_files, mark_failed, measure_latency
from pfpcli.jobs.steps.gate import gated, load_metric, measure_metric
from pfpcli.jobs.steps.judge import certify_layers, evaluate, status
from pfpcli.jobs.steps.open import find_device, open_prunable, resources
from pfpcli.jobs.steps.plan import Planned, make_plan, plan_in_steps
from pfpcli.jobs.steps.record import write_record
from pfpcli.jobs.steps.recover import recover_network
from pfpcli.jobs.steps.score import Scored, score_channels
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE
from pfpcli.outputs.kinds.kind import FARTHEST
from pfpcli.planning.outlook import keep_for
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import check_reachable
from pfpcli.progress import Console
from pfpcli.records.details import Behaviour, Details
from pfpcli.records.folders import run_folder
from pfpcli.records.parts import Certificate, Quality, Recovered, UserMetric, Verification
from pfpcli.records.runs import Run
from pfpcli.recovery.methods import RECOVERIES
from pfpcli.recovery.recover import copy_tensors
from pfpcli.settings import CompressSettings


@dataclass(frozen=True)
class Outcome:
    """The results of all steps; timed: latency before and after, of `batch` inputs at a time; verdict: as `gated`."""

    settings: CompressSettings
    device: torch.device
    model: LoadedModel
    groups: Groups
    scored: Scored
    planned: Planned
    made: Cut
    recovered: list[Recovered]
    certificate: Certificate
    quality: Quality
    verification: Verification
    exported: ExportedFiles
    timed: tuple[Latency, Latency]
    batch: int
    metric: UserMetric | None
    verdict: tuple[str, str]


def compress(settings: CompressSettings, console: Console) -> Finished[Run]:
    """Compress a model and write a run folder.

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = find_device(settings.device)
    measured = load_metric(settings.metric)
    with run_folder(settings.out, settings.name) as folder, resources(settings.threads) as scratch:
        model, calibration, groups = open_prunable(settings, console)
        check_reachable(groups, budget_of(settings))
        scored = score_channels(groups, calibration, settings.criterion, settings, device, console)
        division, budget = scored.division, budget_of(settings)
        stepped = None
        if settings.steps == 1:
            planned = make_plan(groups, scored, budget, settings, device, console)
        else:
            planned, stepped = plan_in_steps(
                groups,
                scored,
                budget,
                settings,
                device,
                console,
                score=lambda now: score_channels(now, calibration, settings.criterion, settings, device, console),
                recover=lambda cut: recover_network(cut, division, settings, device, console),
            )
        plan = planned.plan
        made = cut_network(plan, console)
        difference = verify_cut(plan, made, division, console)
        if stepped is not None:
            copy_tensors(stepped, made.graph)
        elif plan.is_sampled:
            reweight(made, plan, scored.readers)
        recovered = recover_network(made, division, settings, device, console)
        certificate = certify_layers(plan, scored, settings, device, console)
        quality, behaviour = evaluate(groups.labelled.graph, made.graph, division, device, console)
        processes.finish()
        write_plan(plan, made, scored.readers, folder.path)
        exported = export_files(model, made, division, folder.path, scratch, console)
        timed, batch = measure_latency(made.graph, division, exported, settings.threads, console)
        metric = measure_metric(measured, settings.metric, exported, folder.path, division, console)
        verdict = gated(status(quality), quality, metric, settings.max_drop)
        if verdict[0] == "failed":
            exported = mark_failed(exported, folder.path)
        tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": ONNX_TOLERANCE}
        verification = Verification(difference, exported.onnx_vs_torch, exported.model_pt, tolerances)
        outcome = Outcome(
            settings, device, model, groups, scored, planned, made, recovered, certificate, quality,
            verification, exported, timed, batch, metric, verdict,
        )  # fmt: skip
        warnings.warn(console, _warnings(outcome))
        run = _record(outcome, console)
        write_record(run, _details(outcome, behaviour), folder.path)
    return Finished(run, folder.name, exported.module)


def budget_of(settings: CompressSettings) -> Budget:
    """The budget that was asked for."""
    return Budget(settings.keep, settings.keep_of, settings.epsilon, settings.multiple_of, settings.min_channels)


def _record(outcome: Outcome, console: Console) -> Run:
    """The record of a compression."""
    settings, plan, scored = outcome.settings, outcome.planned.plan, outcome.scored
    sizes, timed = outcome.exported.file_bytes, outcome.timed
    return Run(
        **run_fields(
            settings,
            outcome.groups,
            scored.division,
            outcome.quality,
            outcome.verification,
            outcome.exported,
            outcome.device,
            console,
            outcome.verdict,
        ),
        model=model_row(outcome.model, scored.division.calibration.size),
        requested={"keep": plan.budget.keep, "of": plan.budget.of, "epsilon": plan.budget.epsilon},
        achieved={"keep": round(plan.achieved, 6), "exact": plan.is_met},
        before=cost_row(plan.before, sizes[0], timed[0]),
        after=cost_row(plan.after, sizes[1], timed[1]),
        certificate=outcome.certificate,
        recovery=outcome.recovered,
        scoring={
            "criterion": settings.criterion,
            "allocate": settings.allocate,
            "plans": [
                {"name": each.name, "loss": float(f"{min(each.loss, FARTHEST):.4g}")} for each in outcome.planned.tried
            ],
            "reduce": settings.reduce,
            "epsilon": plan.epsilon,
            "delta": settings.delta,
            "samples": scored.scores.samples,
        },
        latency={
            "threads": settings.threads or torch.get_num_threads(),
            "runs": timed[0].runs,
            "batch": outcome.batch,
        },
        layers=layer_rows(outcome.made.slicing),
        groups=group_rows(plan),
        advice=_advice(outcome),
        metric=outcome.metric,
    )


def _details(outcome: Outcome, behaviour: Behaviour | None) -> Details:
    """What the page of the run shows beyond its record."""
    planned, scores = outcome.planned, outcome.scored.scores
    return Details(group_scores(planned.plan, scores), group_curves(planned.plan, scores, planned.curves), behaviour)


def _advice(outcome: Outcome) -> str:
    """What helps a network whose quality fell; "" for all others."""
    quality, planned, settings = outcome.quality, outcome.planned, outcome.settings
    if status(quality)[0] == "ok":
        return ""
    scores, budget = outcome.scored.scores, planned.plan.budget
    keep = keep_for(advice.share_to_keep(quality), outcome.groups, scores, budget, planned.curves)
    has_trained = any(RECOVERIES[name].trains for name in settings.recover)
    division, criterion = outcome.scored.division, settings.criterion
    return advice.after_pruning(quality, keep, division, criterion=criterion, has_trained=has_trained)


def _warnings(outcome: Outcome) -> Iterator[str]:
    """What a user should know about a compression; "" where there is nothing to say."""
    scored, graph = outcome.scored, outcome.groups.labelled.graph
    yield warnings.wrong_preprocessing(scored.division, outcome.quality)
    yield warnings.unfit_labels(scored.division, outcome.quality)
    if scored.scores.layers:
        yield warnings.few_samples(scored.division, scored.readers, outcome.settings.delta)
    yield from scored.scores.remarks
    yield warnings.optimistic(scored.division)
    yield warnings.budget_missed(outcome.planned.plan)
    yield warnings.unknown_ops(outcome.groups)
    yield warnings.stops(outcome.model, outcome.exported, graph)
    yield warnings.fixed_batch(graph)
    yield warnings.unused_parameters(outcome.model, graph)
    yield warnings.exported_anew(outcome.exported)
    yield warnings.skipped_images(scored.division)
    yield warnings.no_faster(*outcome.timed)

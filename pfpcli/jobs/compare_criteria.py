"""`pfp compare-criteria`: cut a model by several criteria at several budgets, and compare the cut networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from pfpcli import processes
from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import readers
from pfpcli.cutting.cut import cut
from pfpcli.cutting.reweight import reweight
from pfpcli.errors import UnsupportedError
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration
from pfpcli.jobs import warnings
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import model_row
from pfpcli.jobs.step_store import StepStore, open_store
from pfpcli.jobs.steps.open import find_device, open_prunable, resources
from pfpcli.jobs.steps.plan import make_plan
from pfpcli.jobs.steps.score import Scored, divided, score_channels
from pfpcli.outputs.quality import compare_all
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.planner import check_reachable
from pfpcli.progress import Console
from pfpcli.records.comparison import Comparison, Point
from pfpcli.records.folders import run_folder
from pfpcli.records.parts import Quality
from pfpcli.records.started import state_folder
from pfpcli.report.comparison import FILES
from pfpcli.settings import CompareCriteriaSettings


@dataclass(frozen=True)
class _Tried:
    """What a criterion came to: a point for each budget, the quality at the first one, and what the scores remark."""

    points: list[Point]
    quality: Quality
    remarks: list[str]


def compare_criteria(settings: CompareCriteriaSettings, console: Console) -> Finished[Comparison]:
    """Compare criteria on a model, and write a table and a chart.

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = find_device(settings.device)
    with run_folder(settings.out, settings.name) as folder, resources(settings.threads):
        stored_in = state_folder("compare-criteria", settings.folder, settings.recorded())
        model, calibration, groups = open_prunable(settings, console)
        check_reachable(groups, Budget(min(settings.keeps), settings.keep_of), Predictor(groups))
        layers, graph = readers(groups), groups.labelled.graph
        division = divided(calibration, layers, settings.criteria[0], settings)
        store = open_store(stored_in, model, graph, division, console, is_used=settings.cache)
        tried: dict[str, _Tried] = {}
        skipped: dict[str, str] = {}
        for criterion in settings.criteria:
            try:
                tried[criterion] = _try_criterion(groups, calibration, criterion, settings, device, store, console)
            except UnsupportedError as error:
                skipped[criterion] = error.message
                continue
            warnings.warn(console, (f"{criterion}: {remark}" for remark in tried[criterion].remarks))
        if not tried:
            raise UnsupportedError("; ".join(skipped.values()), "name other criteria with --criteria")
        processes.finish()
        last = [*tried][-1]
        quality = tried[last].quality
        comparison = Comparison(
            model=model_row(model, calibration.size),
            of=settings.keep_of,
            metric=quality.metric,
            before=quality.before,
            n=quality.n,
            source=quality.source,
            calibration=divided(calibration, layers, last, settings).recorded(),
            settings=settings.recorded(),
            points=[point for each in tried.values() for point in each.points],
            skipped=skipped,
            warnings=console.warnings,
        )
        for file, write in FILES.items():
            (folder.path / file).write_text(write(comparison), encoding="utf-8")
    store.forget()
    return Finished(comparison, folder.name)


def _try_criterion(
    groups: Groups,
    calibration: Calibration,
    criterion: str,
    settings: CompareCriteriaSettings,
    device: torch.device,
    store: StepStore,
    console: Console,
) -> _Tried:
    """Score by one criterion and cut at every budget, unless it was tried before an interrupt.

    Raises:
        UnsupportedError: the criterion cannot score this network.
    """

    def trying() -> _Tried:
        scored = score_channels(groups, calibration, criterion, settings, device, console)
        return _cut_at_budgets(groups, scored, settings, device, store, console)

    tried, is_cached = store.value(trying, _Tried, "criterion", criterion, settings.recorded(), device.type)
    if is_cached:
        with console.step("cut") as step:
            step.is_cached = True
            step.summary = f"criterion {criterion} · {_summary(tried)}"
    return tried


def _cut_at_budgets(
    groups: Groups,
    scored: Scored,
    settings: CompareCriteriaSettings,
    device: torch.device,
    store: StepStore,
    console: Console,
) -> _Tried:
    """Cut by the scores of one criterion at every budget, and judge what is left."""
    plans = [
        make_plan(
            groups, scored, Budget(keep, settings.keep_of, multiple_of=None), settings, device, console, store=store
        ).plan
        for keep in settings.keeps
    ]
    with console.step("cut") as step:
        whole = groups.labelled.graph
        smaller = [_cut(planned, scored) for planned in plans]
        judging = scored.division.judging(whole.fixed_batch)
        found = compare_all(whole, smaller, judging, scored.division.source, device)
        points = [
            Point(scored.criterion, keep, *_kept(planned), q.after, q.agreement, q.distance, scored.seconds)
            for keep, planned, q in zip(settings.keeps, plans, found, strict=True)
        ]
        tried = _Tried(points, found[0], list(scored.scores.remarks))
        step.summary = _summary(tried)
    return tried


def _summary(tried: _Tried) -> str:
    """Return `accuracy at 80 % of the MACs: 91.2 %, 60 % of the MACs: 85.0 %`."""
    shown = ", ".join(f"{100 * p.macs:.0f} % of the MACs: {100 * p.quality:.1f} %" for p in tried.points)
    return f"{tried.quality.metric} at {shown}"


def _cut(planned: Plan, scored: Scored) -> Graph:
    made = cut(planned.groups.labelled, planned.alive)
    reweight(made, planned, scored.readers)
    return made.graph


def _kept(planned: Plan) -> tuple[float, float]:
    """The fractions of parameters and MACs that are kept."""
    before, after = planned.before, planned.after
    return after.params / before.params, after.macs / before.macs

"""`pfp compare-criteria`: cut a model by several criteria at several budgets, and compare the cut networks."""

from __future__ import annotations

import torch

from pfpcli import processes
from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import cut
from pfpcli.cutting.reweight import reweight
from pfpcli.errors import UnsupportedError
from pfpcli.graph.graph import Graph
from pfpcli.jobs import warnings
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import model_row
from pfpcli.jobs.steps.open import find_device, open_prunable, resources
from pfpcli.jobs.steps.plan import make_plan
from pfpcli.jobs.steps.score import Scored, score_channels
from pfpcli.outputs.quality import compare_all
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.planner import check_reachable
from pfpcli.progress import Console
from pfpcli.records.comparison import Comparison, Point
from pfpcli.records.folders import run_folder
from pfpcli.records.parts import Quality
from pfpcli.report.comparison import FILES
from pfpcli.settings import CompareCriteriaSettings


def compare_criteria(settings: CompareCriteriaSettings, console: Console) -> Finished[Comparison]:
    """Compare criteria on a model, and write a table and a chart.

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = find_device(settings.device)
    with run_folder(settings.out, settings.name) as folder, resources(settings.threads):
        model, calibration, groups = open_prunable(settings, console)
        check_reachable(groups, Budget(min(settings.keeps), settings.keep_of), Predictor(groups))
        points: list[Point] = []
        skipped: dict[str, str] = {}
        for criterion in settings.criteria:
            try:
                scored = score_channels(groups, calibration, criterion, settings, device, console)
            except UnsupportedError as error:
                skipped[criterion] = error.message
                continue
            made, quality = _try_criterion(groups, scored, settings, device, console)
            points += made
            warnings.warn(console, (f"{criterion}: {remark}" for remark in scored.scores.remarks))
        if not points:
            raise UnsupportedError("; ".join(skipped.values()), "name other criteria with --criteria")
        processes.finish()
        comparison = Comparison(
            model=model_row(model, calibration.size),
            of=settings.keep_of,
            metric=quality.metric,
            before=quality.before,
            n=quality.n,
            source=quality.source,
            calibration=scored.division.recorded(),
            settings=settings.recorded(),
            points=points,
            skipped=skipped,
            warnings=console.warnings,
        )
        for file, write in FILES.items():
            (folder.path / file).write_text(write(comparison), encoding="utf-8")
    return Finished(comparison, folder.name)


def _try_criterion(
    groups: Groups, scored: Scored, settings: CompareCriteriaSettings, device: torch.device, console: Console
) -> tuple[list[Point], Quality]:
    """Cut by one criterion at every budget; returns a point for each budget, and the quality at one of them."""
    plans = [
        make_plan(groups, scored, Budget(keep, settings.keep_of, multiple_of=None), settings, device, console).plan
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
        shown = ", ".join(f"{100 * p.macs:.0f} % of the MACs: {100 * p.quality:.1f} %" for p in points)
        step.summary = f"{found[0].metric} at {shown}"
    return points, found[0]


def _cut(planned: Plan, scored: Scored) -> Graph:
    made = cut(planned.groups.labelled, planned.alive)
    reweight(made, planned, scored.readers)
    return made.graph


def _kept(planned: Plan) -> tuple[float, float]:
    """The fractions of parameters and MACs that are kept."""
    before, after = planned.before, planned.after
    return after.params / before.params, after.macs / before.macs

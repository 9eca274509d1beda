"""`pfp plan`: everything up to the cut. Nothing is written but plan.json."""

from __future__ import annotations

from pathlib import Path

from pfpcli import processes
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.jobs import warnings
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import group_rows, layer_rows, model_row, scoring_fields
from pfpcli.jobs.steps.network import Maker, Prepared, budget_of, prepare
from pfpcli.jobs.steps.open import find_device, resources
from pfpcli.jobs.steps.plan import Planned
from pfpcli.progress import Console
from pfpcli.records.folders import write_new
from pfpcli.records.parts import Cost
from pfpcli.records.planned import PlannedNetwork
from pfpcli.settings import CompressSettings


def plan(settings: CompressSettings, console: Console) -> Finished[PlannedNetwork]:
    """Plan a network, and write plan.json.

    Raises:
        PfpError: it could not be done; nothing is written.
    """
    device = find_device(settings.device)
    with resources(settings.threads):
        ready = prepare(settings, device, console)
        planned, _ = Maker(ready).plan(budget_of(settings), console)
        processes.finish()
        slicing = Slicing(ready.groups.labelled, planned.plan.alive)
        file = PlanFile.of_plan(planned.plan, slicing, ready.scored.readers)
        warnings.warn(console, warnings.of_plan(ready.groups, ready.scored, planned.plan, settings.delta))
        record = _record(ready, planned, slicing, console)
    target = settings.out or Path(f"{settings.name}-plan.json")
    return Finished(record, str(write_new(target, file.json())))


def _record(ready: Prepared, planned: Planned, slicing: Slicing, console: Console) -> PlannedNetwork:
    """The document of a plan."""
    made = planned.plan
    before, after = (Cost(costs.params, costs.macs, costs.bytes) for costs in (made.before, made.after))
    return PlannedNetwork(
        model=model_row(ready.model, ready.division.calibration.size),
        requested={"keep": made.budget.keep, "of": made.budget.of, "epsilon": made.budget.epsilon},
        achieved={"keep": round(made.achieved, 6), "exact": made.is_met},
        before=before,
        after=after,
        scoring=scoring_fields(ready.settings, ready.scored, planned),
        calibration=ready.division.recorded(),
        layers=layer_rows(slicing),
        groups=group_rows(made),
        settings=ready.settings.recorded(),
        warnings=console.warnings,
    )

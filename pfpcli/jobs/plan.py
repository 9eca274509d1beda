"""`pfp plan`: everything up to the cut. Nothing is written but plan.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pfpcli import processes
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.jobs import warnings
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import group_rows, layer_rows, model_row, requested_row, scoring_fields
from pfpcli.jobs.steps.budget import MEASURED_WITHIN
from pfpcli.jobs.steps.network import Maker, Prepared, prepare
from pfpcli.jobs.steps.open import find_device, resources
from pfpcli.jobs.steps.plan import Planned
from pfpcli.progress import Console
from pfpcli.records.folders import write_new
from pfpcli.records.parts import Cost
from pfpcli.records.planned import PlannedNetwork
from pfpcli.records.started import state_folder
from pfpcli.settings import CompressSettings


def plan(settings: CompressSettings, console: Console) -> Finished[PlannedNetwork]:
    """Plan a network, and write plan.json.

    Raises:
        PfpError: it could not be done; nothing is written.
    """
    device = find_device(settings.device)
    with resources(settings.threads) as scratch:
        stored_in = state_folder("plan", settings.folder, settings.recorded())
        ready = prepare(settings, device, scratch, stored_in, console)
        planned, _ = Maker(ready).plan(ready.budget, console)
        processes.finish()
        slicing = Slicing(ready.groups.labelled, planned.plan.alive)
        file = PlanFile.of_plan(planned.plan, slicing, ready.scored.readers)
        requested, achieved = requested_row(ready), _achieved(ready, planned)
        warnings.warn(console, warnings.of_plan(ready.groups, ready.scored, settings.delta))
        warnings.warn(console, [warnings.budget_missed(requested, achieved)])
        record = _record(ready, planned, requested, achieved, slicing, console)
    target = settings.out or Path(f"{settings.name}-plan.json")
    written = write_new(target, lambda each: each.write(file.json().encode()))
    ready.store.forget()
    return Finished(record, str(written))


def _achieved(ready: Prepared, planned: Planned) -> dict[str, Any]:
    """What the plan keeps; of the file, where one was written to measure it."""
    if planned.measured is None or ready.target is None:
        return {"keep": round(planned.plan.achieved, 6), "exact": planned.plan.is_met}
    kept, share = planned.measured, ready.target[1]
    return {"keep": round(kept, 6), "exact": abs(kept - share) <= MEASURED_WITHIN * share}


def _record(
    ready: Prepared,
    planned: Planned,
    requested: dict[str, Any],
    achieved: dict[str, Any],
    slicing: Slicing,
    console: Console,
) -> PlannedNetwork:
    """The document of a plan."""
    made = planned.plan
    before, after = (Cost(costs.params, costs.macs, costs.bytes) for costs in (made.before, made.after))
    return PlannedNetwork(
        model=model_row(ready.model, ready.division.calibration.size),
        requested=requested,
        achieved=achieved,
        before=before,
        after=after,
        scoring=scoring_fields(ready.settings, ready.scored, planned),
        calibration=ready.division.recorded(),
        layers=layer_rows(slicing),
        groups=group_rows(made),
        settings=ready.settings.recorded(),
        warnings=console.warnings,
    )

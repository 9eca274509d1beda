"""Network: plan, cut, verify and recover. What comes before is shared by all networks that a job makes of one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import Cut
from pfpcli.cutting.reweight import reweight
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration, Division, check_damageable
from pfpcli.jobs.step_store import StepStore, open_store
from pfpcli.jobs.steps.budget import Meter, budget_of, met, meter_for, predictor_for
from pfpcli.jobs.steps.cut import cut_network, verify_cut
from pfpcli.jobs.steps.expected import forecast
from pfpcli.jobs.steps.export import OnnxWriter
from pfpcli.jobs.steps.open import open_network, open_prunable
from pfpcli.jobs.steps.plan import Planned, make_plan, plan_in_steps
from pfpcli.jobs.steps.recover import recover_network
from pfpcli.jobs.steps.replay import unscored
from pfpcli.jobs.steps.score import Scored, score_channels
from pfpcli.jobs.steps.widths import Race, remembered
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import check_reachable
from pfpcli.planning.portfolio import Tried
from pfpcli.progress import Console
from pfpcli.records.parts import Recovered
from pfpcli.recovery.recover import copy_tensors
from pfpcli.settings import CompressSettings


@dataclass(frozen=True)
class Prepared:
    """What all networks of a job are made of.

    Attributes:
        settings: of the job.
        device: where to compute.
        model: the network that came in.
        calibration: the images.
        groups: the groups of its channels.
        scored: their scores, and which images have which purpose.
        predictor: predicts the costs of plans.
        writer: writes ONNX files.
        budget: how much to keep, as far as it is known before a file is measured.
        store: the finished steps of the job.
        target: what to measure on the written file of a plan, and its share of the original's; None measures nothing.
        race: times the files of plans; None where they cannot be timed.
    """

    settings: CompressSettings
    device: torch.device
    model: LoadedModel
    calibration: Calibration
    groups: Groups
    scored: Scored
    predictor: Predictor
    writer: OnnxWriter
    budget: Budget
    store: StepStore
    target: tuple[Meter, float] | None = None
    race: Race | None = None

    @property
    def division(self) -> Division:
        """Which images score, recover and judge."""
        return self.scored.division

    def asked(self, settings: CompressSettings, scratch: Path) -> Prepared:
        """Return the same for the budget of other settings, which differ in nothing else."""
        meter = meter_for(settings, self.writer, self.groups, self.division, scratch, self.store)
        budget, target = budget_of(settings, self.predictor, meter)
        return replace(self, settings=settings, budget=budget, target=target)

    def divided(self, division: Division) -> Prepared:
        """Return the same with other judging images."""
        return replace(self, scored=replace(self.scored, division=division))


@dataclass(frozen=True)
class Network:
    """A cut and recovered network.

    Attributes:
        planned: how it was planned.
        made: the network, and how it was cut.
        difference: the largest difference between the cut and the masked network.
        recovered: what was done after the cut, in order.
    """

    planned: Planned
    made: Cut
    difference: float
    recovered: list[Recovered]


def prepare(
    settings: CompressSettings, device: torch.device, scratch: Path, stored_in: Path, console: Console
) -> Prepared:
    """Open the model and the images, find the budget and refuse one that cannot be met, and score.

    Args:
        settings: of the job; where they name a plan or keep everything, nothing is scored.
        device: where to compute.
        scratch: a folder for files.
        stored_in: the folder of the finished steps, see `records.started.state_folder`.
        console: shows the steps.

    Raises:
        BudgetError: the smallest valid network costs more than the budget.
    """
    model, calibration, groups = (open_network if settings.is_whole else open_prunable)(settings, console)
    if settings.robustness:
        check_damageable(calibration)
    nothing_scored = unscored(groups, calibration, settings)
    graph, division = groups.labelled.graph, nothing_scored.division
    store = open_store(stored_in, model, graph, division, console, is_used=settings.cache)
    writer = OnnxWriter(model, graph, division.samples, scratch, store)
    if settings.plan is not None or settings.is_whole:
        return Prepared(
            settings,
            device,
            model,
            calibration,
            groups,
            nothing_scored,
            Predictor(groups),
            writer,
            Budget(settings.fraction),
            store,
        )
    predictor = predictor_for(groups, settings, console)
    meter = meter_for(settings, writer, groups, nothing_scored.division, scratch, store)
    budget, target = budget_of(settings, predictor, meter)
    if not settings.is_searched:
        check_reachable(groups, budget, predictor)
    console.forecast = forecast(settings, model.kind)
    scored = score_channels(groups, calibration, settings.criterion, settings, device, console)
    # a search that goes on after an interrupt must not depend on how long its networks took
    race = None if settings.is_searched else remembered(meter.race, scored.key, settings.threads)
    return Prepared(
        settings, device, model, calibration, groups, scored, predictor, writer, budget, store, target, race
    )


class Maker:
    """Makes networks for several budgets from the same scores and curves.

    Attributes:
        prepared: what they are made of.
        curves: those that were measured so far.
    """

    def __init__(self, prepared: Prepared, curves: Sequence[Curve] = ()) -> None:
        self.prepared = prepared
        self.curves: Sequence[Curve] = curves

    def __call__(self, budget: Budget, console: Console) -> Network:
        """Make the network for a budget.

        Raises:
            BudgetError: the smallest valid network costs more than the budget.
        """
        planned, stepped = self.plan(budget, console)
        return made_as_planned(self.prepared, planned, console, stepped)

    def plan(self, budget: Budget, console: Console) -> tuple[Planned, Graph | None]:
        """Plan a network for a budget; returns the network that cuts in several steps have made as well, if it was.

        Raises:
            BudgetError: the smallest valid network costs more than the budget.
        """
        ready = self.prepared
        settings, device, groups, scored = ready.settings, ready.device, ready.groups, ready.scored
        if settings.steps == 1:
            smallest = check_reachable(groups, budget, ready.predictor)
            return self._planned(budget, smallest, console), None
        return plan_in_steps(
            groups,
            scored,
            budget,
            settings,
            device,
            console,
            score=lambda now: score_channels(now, ready.calibration, settings.criterion, settings, device, console),
            recover=lambda cut: recover_network(cut, ready.division, settings, device, ready.store, console),
            store=ready.store,
        )

    def _planned(self, budget: Budget, smallest: float, console: Console) -> Planned:
        """Make the plan for a budget; its written file is measured where there is a target."""
        ready = self.prepared

        def make(now: Budget, like: Tried | None) -> Planned:
            planned = make_plan(
                ready.groups,
                ready.scored,
                now,
                ready.settings,
                ready.device,
                console,
                self.curves,
                predictor=ready.predictor,
                like=like,
                store=ready.store,
                race=ready.race,
            )
            self.curves = planned.curves
            return planned

        return make(budget, None) if ready.target is None else met(make, *ready.target, budget, smallest, console)


def made_as_planned(ready: Prepared, planned: Planned, console: Console, stepped: Graph | None = None) -> Network:
    """Cut, verify and recover a network.

    Args:
        ready: what it is made of.
        planned: which channels stay.
        console: shows the steps.
        stepped: the network with the tensors that cuts in several steps have made; None takes the original's.
    """
    plan, division = planned.plan, ready.division
    made = cut_network(plan, console)
    difference = verify_cut(plan, made, division, console)
    if stepped is not None:
        copy_tensors(stepped, made.graph)
    elif plan.is_sampled:
        reweight(made, plan, ready.scored.readers)
    recovered = recover_network(made, division, ready.settings, ready.device, ready.store, console)
    return Network(planned, made, difference, recovered)

"""Network: plan, cut, verify and recover. What comes before is shared by all networks that a job makes of one model."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import Cut
from pfpcli.cutting.reweight import reweight
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration, Division, check_damageable
from pfpcli.jobs.steps.cut import cut_network, verify_cut
from pfpcli.jobs.steps.open import open_network, open_prunable
from pfpcli.jobs.steps.plan import Planned, make_plan, plan_in_steps
from pfpcli.jobs.steps.recover import recover_network
from pfpcli.jobs.steps.replay import unscored
from pfpcli.jobs.steps.score import Scored, score_channels
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.planning.curves import Curve
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import check_reachable
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
    """

    settings: CompressSettings
    device: torch.device
    model: LoadedModel
    calibration: Calibration
    groups: Groups
    scored: Scored

    @property
    def division(self) -> Division:
        """Which images score, recover and judge."""
        return self.scored.division

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


def prepare(settings: CompressSettings, device: torch.device, console: Console) -> Prepared:
    """Open the model and the images, and score the channels.

    Raises:
        BudgetError: no scores can meet the budget.
    """
    model, calibration, groups = _opened(settings, console)
    if not settings.is_searched:
        check_reachable(groups, budget_of(settings))
    scored = score_channels(groups, calibration, settings.criterion, settings, device, console)
    return Prepared(settings, device, model, calibration, groups, scored)


def prepare_unscored(settings: CompressSettings, device: torch.device, console: Console) -> Prepared:
    """Open the model and the images for a plan that is made already, or that keeps everything."""
    model, calibration, groups = _opened(settings, console)
    return Prepared(settings, device, model, calibration, groups, unscored(groups, calibration, settings))


def _opened(settings: CompressSettings, console: Console) -> tuple[LoadedModel, Calibration, Groups]:
    """Open the model and the images, and refuse what a later step could not use."""
    opened = (open_network if settings.is_whole else open_prunable)(settings, console)
    if settings.robustness:
        check_damageable(opened[1])
    return opened


def budget_of(settings: CompressSettings) -> Budget:
    """The budget that was asked for."""
    return Budget(settings.fraction, settings.keep_of, settings.epsilon, settings.multiple_of, settings.min_channels)


class Maker:
    """Makes networks for several budgets from the same scores and curves.

    Args:
        prepared: what they are made of.
    """

    def __init__(self, prepared: Prepared) -> None:
        self._prepared = prepared
        self._curves: list[Curve] = []

    def __call__(self, budget: Budget, console: Console) -> Network:
        """Make the network for a budget.

        Raises:
            BudgetError: the smallest valid network costs more than the budget.
        """
        planned, stepped = self.plan(budget, console)
        return made_as_planned(self._prepared, planned, console, stepped)

    def plan(self, budget: Budget, console: Console) -> tuple[Planned, Graph | None]:
        """Plan a network for a budget; returns the network that cuts in several steps have made as well, if it was.

        Raises:
            BudgetError: the smallest valid network costs more than the budget.
        """
        ready = self._prepared
        settings, device, groups, scored = ready.settings, ready.device, ready.groups, ready.scored
        if settings.steps == 1:
            check_reachable(groups, budget)
            planned = make_plan(groups, scored, budget, settings, device, console, self._curves)
            self._curves = planned.curves
            return planned, None
        return plan_in_steps(
            groups,
            scored,
            budget,
            settings,
            device,
            console,
            score=lambda now: score_channels(now, ready.calibration, settings.criterion, settings, device, console),
            recover=lambda cut: recover_network(cut, ready.division, settings, device, console),
        )


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
    recovered = recover_network(made, division, ready.settings, ready.device, console)
    return Network(planned, made, difference, recovered)

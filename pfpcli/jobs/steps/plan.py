"""Plan: measure what each group loses when it is narrowed, and choose how many channels each group keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import count as count_from
from typing import Any

import torch
from numpy.typing import NDArray

from pfpcli.activations.task import Task
from pfpcli.amounts import COUNTED
from pfpcli.channels.cost import Predictor, count
from pfpcli.channels.groups import Group, Groups
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.cutting.reweight import reweight
from pfpcli.graph.graph import Graph
from pfpcli.jobs import cache
from pfpcli.jobs.step_store import NOTHING, StepStore
from pfpcli.jobs.steps.open import group_by_settings
from pfpcli.jobs.steps.score import Scored
from pfpcli.jobs.steps.widths import Race, choose, is_open, is_timed, quickest
from pfpcli.planning.allocations import ALLOCATIONS, BEST, TRIED, TRIED_FOR, UNMEASURED
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import Curve, curves
from pfpcli.planning.plan import Budget, Plan
from pfpcli.planning.planner import Planner
from pfpcli.planning.portfolio import TOWARDS, Tried, moved, try_plans
from pfpcli.progress import Console, Step
from pfpcli.recovery.trial import Trials
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings import CompareCriteriaSettings, CompressSettings

#: So many of the allocations that are best for the first planner are tried for another one.
AGAIN = 2

#: Settings that say how a budget is divided among the groups.
Allocating = CompressSettings | CompareCriteriaSettings


@dataclass(frozen=True)
class Planned:
    """The result of the planning step.

    Attributes:
        plan: the plan.
        tried: the plans that were tried, this one first, then by their losses; empty where only one came into question.
            For a budget that is met by measuring files, those of the first guess.
        curves: of the groups that can lose units; empty where none were measured.
        measured: the size or latency of the written file, as a part of the original's; None where it was not measured.
        widths: which plan was taken of those that lose nearly the same, and why; "" where there was nothing to choose.
    """

    plan: Plan
    tried: list[Tried]
    curves: list[Curve]
    measured: float | None = None
    widths: str = ""


@dataclass(frozen=True)
class _Trial:
    """What the trial of a plan came to: its loss, and the lambdas of all layers after it (`Findings.ridges`)."""

    loss: float
    ridges: dict[str, float | None]


def make_plan(
    groups: Groups,
    scored: Scored,
    budget: Budget,
    settings: Allocating,
    device: torch.device,
    console: Console,
    known: Sequence[Curve] = (),
    *,
    predictor: Predictor | None = None,
    like: Tried | None = None,
    store: StepStore = NOTHING,
    race: Race | None = None,
) -> Planned:
    """Measure the curves, if an allocator needs them and they are not known from another budget, and plan.

    Args:
        groups: the groups of the network.
        scored: their scores.
        budget: how much to keep.
        settings: of the job.
        device: where to compute.
        console: shows the steps.
        known: curves that were measured for another budget.
        predictor: of the same groups, for a budget of latency; None makes one.
        like: a plan that was tried for another budget and is moved to this one; None tries those in question.
        store: the finished steps of the job.
        race: times the files of plans; None where they cannot be timed.
    """
    names = _allocations(scored, budget, settings)
    measured = list(known)
    if not known and _needs_curves(budget, names):
        ordered = orders(groups, scored.scores, budget)
        measured = measure_curves(groups, scored, ordered, settings, device, console)
    chooses = like is None and bool(len(scored.division.checked)) and is_open(groups, budget)
    with console.step("plan") as step:
        planners = [
            Planner(
                groups,
                scored.scores,
                each,
                predictor=predictor,
                select=CRITERIA[scored.criterion].select,
                delta=settings.delta,
                seed=settings.seed,
                curves=measured,
            )
            for each in ((budget, replace(budget, multiple_of=1)) if chooses else (budget,))  # with multiples first
        ]
        if like is not None:
            planned = Planned(moved(planners[0], like), [], measured)
        elif chooses or len(names) > 1:
            families = _tried(planners, names, scored, device, store, step)
            tried, chosen = _chosen(families, groups, budget, race)
            planned = Planned(tried[0].plan, tried, measured, widths=chosen)
        else:
            planned = Planned(planners[0].by(names[0]), [], measured)
        step.summary = _summary(planned, budget)
    return planned


def _needs_curves(budget: Budget, names: Sequence[str]) -> bool:
    return budget.epsilon is None and budget.keep < 1 and any(ALLOCATIONS[name].needs_curves for name in names)


def _chosen(
    families: Sequence[list[Tried]], groups: Groups, budget: Budget, race: Race | None
) -> tuple[list[Tried], str]:
    """Choose among the plans that were tried, with and without multiples or all alike, see `widths`."""
    if len(families) > 1:
        with_multiples, free = families
        return choose(free, with_multiples, race)
    [tried] = families
    return quickest(tried, race) if is_timed(groups, budget) else (tried, "")


def _summary(planned: Planned, budget: Budget) -> str:
    """Return what a plan keeps, what was asked for, and what it was chosen among."""
    plan, tried = planned.plan, planned.tried
    what = COUNTED[budget.of].noun
    asked = f"asked {100 * budget.keep:.4g} %" if budget.epsilon is None else f"asked ε ≤ {budget.epsilon:g}"
    epsilon = f" → ε = {plan.epsilon:.3g}" if plan.epsilon is not None and budget.epsilon is None else ""
    of = "best" if all(tried[0].loss <= each.loss for each in tried) else "nearly the best"
    best = f" · {of} of {len(tried)} plans: {tried[0].name}" if len(tried) > 1 else ""
    widths = f" · {planned.widths.partition(';')[0]}" if planned.widths else ""
    return f"keep {100 * plan.achieved:.1f} % of the {what}, {asked}{epsilon}{best}{widths}"


def _tried(
    planners: Sequence[Planner],
    names: tuple[str, ...],
    scored: Scored,
    device: torch.device,
    store: StepStore,
    step: Step,
) -> list[list[Tried]]:
    """Try the plans of several allocations on the network; of each planner, the best one comes first."""
    most, measured = len(names) + TOWARDS + (len(planners) - 1) * (AGAIN + 1), count_from(0)
    trials = Trials(scored.readers, scored.division, device)
    losses: dict[bytes, float] = {}  # two planners may make the same plan

    def tried(plan: Plan) -> _Trial:
        return _Trial(trials.loss(plan), trials.findings.ridges)

    def measure(plan: Plan) -> float:
        step.progress(next(measured), most, "plans")
        alive, scale = plan.alive.tobytes(), plan.scale.tobytes()
        if alive + scale not in losses:
            parts = plan.groups.labelled.graph, alive, scale, trials.findings.ridges, device.type
            found, _ = store.value(lambda: tried(plan), _Trial, "trial", *parts)
            trials.findings.ridges.update(found.ridges)
            losses[alive + scale] = found.loss
        return losses[alive + scale]

    first = try_plans(planners[0], names, measure)
    best = [each.name for each in first if each.name in names][:AGAIN]
    return [first, *(try_plans(planner, best, measure) for planner in planners[1:])]


def _allocations(scored: Scored, budget: Budget, settings: Allocating) -> tuple[str, ...]:
    """The allocations that come into question."""
    if settings.allocate != BEST:
        return (settings.allocate,)
    if budget.epsilon is not None or budget.keep == 1:
        return (UNMEASURED,)  # the budget alone decides
    if not len(scored.division.checked):
        return (UNMEASURED,)
    return *TRIED, *TRIED_FOR.get(budget.of, ())


def measure_curves(
    groups: Groups,
    scored: Scored,
    ordered: list[tuple[Group, NDArray[Any]]],
    settings: Allocating,
    device: torch.device,
    console: Console,
) -> list[Curve]:
    """Measure what each group loses at a few widths, or read the curves from the cache.

    Args:
        groups: the groups of the network.
        scored: the scores, and the images to measure on.
        ordered: (group, int64[positions, parts]): its units in the order in which they are kept.
        settings: of the job.
        device: where to compute.
        console: shows the step.
    """
    with console.step("curves") as step:
        graph, division = groups.labelled.graph, scored.division
        key = cache.key_of_curves(scored.key, division, ordered) if scored.key else ""
        found = cache.load_curves(key) if key else None
        step.is_cached = found is not None
        if found is None:
            batch = graph.fixed_batch
            seed, fitting = settings.seed, scored.fitting
            task = Task(groups, scored.readers, lambda: division.fitting(batch), device, seed=seed, fitting=fitting)
            # without images to spare, the curves are those of the fit
            measuring = replace(task, batches=lambda: division.checking(batch)) if len(division.checked) else task
            found = curves(
                task,
                measuring,
                ordered,
                count(graph).macs,
                lambda share: step.progress(int(100 * share), 100, "% of the groups"),
            )
            if key:
                cache.save_curves(key, found)
        widths = sum(len(curve.kept) for curve in found)
        step.summary = f"{len(found)} groups at {widths} widths"
    return found


def plan_in_steps(
    groups: Groups,
    scored: Scored,
    budget: Budget,
    settings: CompressSettings,
    device: torch.device,
    console: Console,
    *,
    score: Callable[[Groups], Scored],
    recover: Callable[[Cut], object],
    store: StepStore = NOTHING,
) -> tuple[Planned, Graph]:
    """Plan in several steps: cut, recover, score what is left, and go on. The last cut is not recovered here.

    The fractions kept after the steps fall geometrically.

    Args:
        groups: the groups of the original network.
        scored: its scores.
        budget: how much to keep after the last step.
        settings: of the job.
        device: where to compute.
        console: shows the steps.
        score: scores a network that a step has left.
        recover: recovers a network that a step has cut.
        store: the finished steps of the job.

    Returns:
        (one plan for the original network, with the plans that the last step tried; the network that the steps have
        made).
    """
    graph, groups_now, scored_now = groups.labelled.graph, groups, scored
    names = [str(node.target) for node in graph.nodes if node.op == "get_attr"]
    whole, joined = count(graph).of(budget.of), None
    for step in range(1, settings.steps + 1):
        keep = budget.keep ** (step / settings.steps)
        left = min(1.0, keep * whole / count(groups_now.labelled.graph).of(budget.of))
        # A convolution whose groups keep one channel each becomes a depthwise one, which can drop whole groups.
        part = 1 if step == settings.steps else 2
        part_budget = replace(budget, keep=left, min_part=part)
        planned = make_plan(groups_now, scored_now, part_budget, settings, device, console, store=store)
        made = cut(groups_now.labelled, planned.plan.alive)
        reweight(made, planned.plan, scored_now.readers)
        file = PlanFile.of_plan(planned.plan, made.slicing, scored_now.readers).only(names)
        joined = file if joined is None else joined.then(file)
        if step < settings.steps:
            so_far = Slicing(groups.labelled, joined.plan(groups, scored.readers).alive)
            recover(Cut(so_far, made.graph))
            groups_now = group_by_settings(made.graph, settings)
            scored_now = score(groups_now)
    assert joined is not None
    whole_plan = replace(joined.plan(groups, scored.readers), budget=budget)
    return Planned(whole_plan, planned.tried, []), made.graph

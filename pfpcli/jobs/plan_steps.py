"""Steps of a plan: what each group loses when it is narrowed, how much each keeps, all at once or a part at a time."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from pfpcli.activations.task import Task
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Group, Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.cutting.plan_file import follow, replan
from pfpcli.cutting.reweight import reweight
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration
from pfpcli.jobs import cache, describe
from pfpcli.jobs.outcome import Scored
from pfpcli.jobs.recover_steps import recover
from pfpcli.jobs.steps import score_units
from pfpcli.planning.curves import MEASURED, Curve, curves
from pfpcli.planning.plan import Budget, Plan, orders, plan
from pfpcli.progress import Console
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.settings import Settings


def make_plan(
    groups: Groups, scored: Scored, settings: Settings, device: torch.device, console: Console, *, min_part: int = 1
) -> Plan:
    """Decide what goes; each part of a group keeps `min_part` units."""
    budget = replace(_budget(settings), min_part=min_part)
    measured: list[Curve] = []
    if settings.allocate in MEASURED and settings.epsilon is None and settings.keep < 1:
        measured = _curves(groups, scored, orders(groups, scored.scores, budget), settings, device, console)
    with console.step("plan") as step:
        planned = plan(
            groups,
            scored.scores,
            budget,
            allocate=settings.allocate,
            select=CRITERIA[settings.criterion].select,
            delta=settings.delta,
            seed=settings.seed,
            curves=measured,
        )
        what = {"params": "parameters", "macs": "MACs"}[budget.of]
        asked = f"asked {100 * budget.keep:.4g} %" if budget.epsilon is None else f"asked ε ≤ {budget.epsilon:g}"
        epsilon = f" → ε = {planned.epsilon:.3g}" if planned.epsilon is not None and budget.epsilon is None else ""
        step.summary = f"keep {100 * planned.achieved:.1f} % of the {what}, {asked}{epsilon}"
    return planned


def _budget(settings: Settings) -> Budget:
    return Budget(settings.keep, settings.keep_of, settings.epsilon, settings.multiple_of, settings.min_channels)


def _curves(
    groups: Groups,
    scored: Scored,
    ordered: list[tuple[Group, NDArray[Any]]],
    settings: Settings,
    device: torch.device,
    console: Console,
) -> list[Curve]:
    """What each group loses when it is narrowed, with its units going in order."""
    with console.step("curves") as step:
        graph, division = groups.labelled.graph, scored.division
        name = cache.key_of_curves(scored.cached, ordered) if scored.cached else ""
        found = cache.load_curves(name) if name else None
        before = "" if found is None else "cached: "
        if found is None:
            total, batch = len(division.scored), graph.fixed_batch
            task = Task(
                groups,
                scored.readers,
                lambda: division.scoring(batch),
                device,
                seed=settings.seed,
                progress=lambda done: step.progress(done, total, "images"),
            )
            found = curves(task, ordered, count(graph).macs)
            if name:
                cache.save_curves(name, found)
        widths = sum(len(curve.kept) for curve in found)
        step.summary = f"{before}{len(found)} groups at {widths} widths, allocated by {settings.allocate}"
    return found


def plan_in_steps(
    groups: Groups,
    scored: Scored,
    calibration: Calibration,
    settings: Settings,
    device: torch.device,
    console: Console,
) -> tuple[Plan, Graph]:
    """Decide what goes, a part of it at a time: cut, recover, score what is left, go on.

    The fractions kept after the steps fall geometrically. The last cut is left to be recovered.

    Returns:
        (one plan for the original network, the network that the steps have come to).
    """
    graph, now, measured = groups.labelled.graph, groups, scored
    names = {str(node.target) for node in graph.nodes if node.op == "get_attr"}
    content: dict[str, Any] = {}
    whole = getattr(count(graph), settings.keep_of)
    for step in range(1, settings.steps + 1):
        keep = settings.keep ** (step / settings.steps)
        left = min(1.0, keep * whole / getattr(count(now.labelled.graph), settings.keep_of))
        # a convolution whose groups keep a channel each is a depthwise one, which can do without whole groups
        part = 1 if step == settings.steps else 2
        planned = make_plan(now, measured, replace(settings, keep=left), device, console, min_part=part)
        cut_now = cut(now.labelled, planned.alive)
        slicing, smaller = cut_now
        reweight(cut_now, planned, measured.readers)
        made = json.loads(describe.plan_json(planned, slicing, measured.readers))
        made["tensors"] = {name: dims for name, dims in made["tensors"].items() if name in names}
        content = follow(content, made) if content else made
        if step < settings.steps:
            so_far = Slicing(groups.labelled, replan(content, groups, scored.readers).alive)
            recover(Cut(so_far, smaller), scored.division, settings, device, console)
            now = group(label(smaller), settings.freeze, exact_only=settings.exact_only)
            measured = score_units(now, calibration, settings, settings.criterion, device, console)
    return replace(replan(content, groups, scored.readers), budget=_budget(settings)), smaller

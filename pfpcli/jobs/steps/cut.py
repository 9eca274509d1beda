"""Cut: make the smaller network as planned, and prove that it equals the masked original."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pfpcli.channels.cost import count
from pfpcli.channels.reading_layers import Reader
from pfpcli.cutting.cut import Cut, cut
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.cutting.verify import cut_vs_masked
from pfpcli.errors import CheckFailed
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.planning.plan import Plan
from pfpcli.progress import Console
from pfpcli.records.folders import FILES


def cut_network(planned: Plan, console: Console) -> Cut:
    """Cut the network as planned."""
    with console.step("cut") as step:
        made = cut(planned.groups.labelled, planned.alive)
        pairs = zip(planned.groups.groups, planned.kept, strict=True)
        channels = [(group.size, kept * group.width) for group, kept in pairs if not group.frozen]
        step.summary = f"{sum(size for size, _ in channels)} → {sum(kept for _, kept in channels)} prunable channels"
    return made


def verify_cut(planned: Plan, made: Cut, division: Division, console: Console) -> float:
    """Compare the cut network with the masked one, and its costs with the plan; returns the largest difference."""
    with console.step("verify") as step:
        difference = cut_vs_masked(made, division.samples(made.graph.batch))
        check_costs(planned, made.graph)
        step.summary = f"cut ≡ masked (max {difference:.0e}) · predicted = counted"
    return difference


def check_costs(planned: Plan, smaller: Graph) -> None:
    """Refuse a network that does not cost what the plan predicted."""
    counted = count(smaller)
    if counted != planned.after:
        raise CheckFailed(
            f"the plan predicted {planned.after}, the cut network has {counted}",
            "this is a bug in pfp: please report it with the model's architecture",
        )


def write_plan(planned: Plan, made: Cut, readers: Iterable[Reader], folder: Path) -> None:
    """Write plan.json into a run folder."""
    (folder / FILES["plan"]).write_text(PlanFile.of_plan(planned, made.slicing, readers).json(), encoding="utf-8")

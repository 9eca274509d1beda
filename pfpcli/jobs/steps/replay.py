"""Replay: plans that need no scores.

They keep everything, or come from a file that was made for the network or for a fine-tuned checkpoint of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pfpcli.amounts import COUNTED
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.images.calibration import Calibration
from pfpcli.jobs.steps.plan import Planned
from pfpcli.jobs.steps.score import Scored, divided
from pfpcli.planning.planner import without
from pfpcli.progress import Console
from pfpcli.scoring.scores import Scores
from pfpcli.settings import CompressSettings

#: What a record names in the place of the criterion.
REPLAYED, EVERYTHING = "plan", "none"


def unscored(groups: Groups, calibration: Calibration, settings: CompressSettings) -> Scored:
    """Return no scores; the images are divided as if channels were scored, so recovery fits to the same ones."""
    found = readers(groups)
    division = divided(calibration, found, settings.criterion, settings)
    name = EVERYTHING if settings.is_whole else REPLAYED
    return Scored(name, division, found, Scores(np.full(len(groups.root), np.nan)), 0.0)


def replay(file: PlanFile, groups: Groups, found: Sequence[Reader], name: str, console: Console) -> Planned:
    """Return the plan of a file.

    Args:
        file: what is kept of every tensor.
        groups: the groups of the network.
        found: the layers that read channels.
        name: of the file.
        console: shows the step.

    Raises:
        InputError: the file is of another network; the message names the tensor.
    """
    with console.step("plan") as step:
        plan = file.plan(groups, found, name)
        step.summary = f"keep {100 * plan.achieved:.1f} % of the {COUNTED[file.of].noun}, as {name} says"
    return Planned(plan, [], [])


def everything(groups: Groups) -> Planned:
    """Return the plan that drops nothing."""
    return Planned(without(groups, np.zeros(len(groups.root), dtype=np.bool_)), [], [])

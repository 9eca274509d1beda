"""Sources: what a run was made from beside its model, as its record names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pfpcli.records.folders import FILES

#: How a run was made from something else.
How = Literal["trained", "planned", "swept"]


@dataclass
class Source:
    """Something that a run was made from.

    Attributes:
        how: "trained": it trained the network of another run; "planned": it was cut by the plan of another run;
            "swept": it is a point of a sweep.
        name: name of the folder of that run or sweep.
    """

    how: How
    name: str


def of_plan(plan: Path | None) -> list[Source]:
    """Return the run that a plan lies in; of a plan that lies elsewhere, the name of its folder is private.

    Args:
        plan: the path as the user typed it; None where no plan was named.
    """
    if plan is None or not (plan.parent / FILES["run"]).is_file():
        return []
    return [Source("planned", plan.resolve().parent.name)]

"""Sources: what a run was made from beside its model, as its record names it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pfpcli.records.folders import FILES

#: How a run was made from something else.
How = Literal["trained", "planned", "pruned", "swept"]


@dataclass
class Source:
    """Something that a run was made from.

    Attributes:
        how: "trained": it trained the network of another run; "planned": it was cut by the plan of another run;
            "pruned": it pruned the network of another run; "swept": it is a point of a sweep.
        name: name of the folder of that run or sweep.
    """

    how: How
    name: str


def of_files(model: object, plan: Path | None) -> list[Source]:
    """Return the runs that a model and a plan lie in; of a file that lies elsewhere, the name of its folder is private.

    Args:
        model: the path as the user typed it; anything else is a module in memory.
        plan: the path of a plan; None where none was named.
    """
    files: dict[How, object] = {"pruned": model, "planned": plan}
    return [
        Source(how, file.resolve().parent.name)
        for how, file in files.items()
        if isinstance(file, Path) and (file.parent / FILES["run"]).is_file()
    ]

"""Options about the outputs: what they say, and how good they must be. As `options`, each option is written once."""

from __future__ import annotations

from typing import Annotated, Any

from pfpcli.cli.flags import flag
from pfpcli.outputs.asked import TASKS
from pfpcli.outputs.kinds import KINDS
from pfpcli.settings import CompressSettings
from pfpcli.settings.max_drop import parse_max_drop

OUTPUTS = "What the outputs say"

_ROLES = "; ".join(f"{name} ({kind.summary})" for name, kind in KINDS.items())


def outputs(
    output: Annotated[
        list[str] | None,
        flag(
            OUTPUTS,
            f"What an output says, where pfp tells it wrongly, e.g. 'scores=probabilities:2'. Roles: {_ROLES}. "
            "Repeatable.",
            metavar="NAME=ROLE[:AXIS]",
        ),
    ] = None,
    task: Annotated[
        str | None,
        flag(OUTPUTS, "What the network is for. Default: told by its last ops and its values.", choices=tuple(TASKS)),
    ] = None,
) -> dict[str, Any]:
    """What the outputs say."""
    return {"output": tuple(output or ()), "task": task}


def gate(
    metric: Annotated[
        str | None,
        flag(
            OUTPUTS,
            "Your own metric: a function of the paths of an ONNX file and of the folder of images, higher is better. "
            "The file is run.",
            metavar="FILE.py:FUNCTION",
        ),
    ] = CompressSettings.metric,
    max_drop: Annotated[
        str | None,
        flag(
            OUTPUTS,
            "Make the smallest network whose quality, or --metric, falls by at most X after recovery: 1%, 0.01, "
            "0.5dB. With --keep, --epsilon or --plan: fail (exit code 1) if it falls by more.",
            metavar="X",
        ),
    ] = None,
) -> dict[str, Any]:
    """What the quality must be."""
    return {"metric": metric, "max_drop": None if max_drop is None else parse_max_drop(max_drop)}

"""How a run was made, and how to make it again."""

from __future__ import annotations

import json
import shlex
from typing import Any

from pfpcli.records.runs import AnyRun, Run, TunedRun
from pfpcli.report import parts
from pfpcli.report.html.views import Cell, Column, Facts, Row, Table

#: Settings whose values are joined by commas; other lists repeat their flag.
_JOINED = ("recover", "input_size", "mean", "std")
#: Settings that a command takes in another place, or not at all.
_ELSEWHERE = ("model", "calib", "run", "out")


def command(run: AnyRun) -> str:
    """Return the command that made a run, with names in the place of paths; "" where none is known to have made it."""
    if not run.origins:
        return ""
    tuned = isinstance(run, TunedRun)
    words = ["pfp", run.kind, *_named(run.settings.get("run" if tuned else "model"))]
    words += ["--data" if tuned else "--calib", *_named(run.settings.get("calib"))]
    for name, origin in run.origins.items():
        if name not in _ELSEWHERE and not (tuned and origin == run.settings.get("run")):
            words += _flag(name, run.settings.get(name))
    return shlex.join(words)


def _named(value: object) -> list[str]:
    return [] if value is None else [str(value)]


def _flag(name: str, value: Any) -> list[str]:
    """Return a setting as it is typed."""
    flag = f"--{name.replace('_', '-')}"
    if value is None:
        return []
    if isinstance(value, bool):
        return [flag] if value else [f"--no-{name.replace('_', '-')}"]
    if isinstance(value, dict):
        return [flag, json.dumps(value)]
    if not isinstance(value, list):
        return [flag, f"{value:g}" if isinstance(value, float) else str(value)]
    if name in _JOINED:
        return [flag, ",".join(map(str, value)) or "none"]
    return [word for each in value for word in (flag, str(each))]


def settings(run: AnyRun) -> Table:
    """Return every setting with its value, and where the value comes from."""
    default = "default" if run.origins else ""
    rows = [
        Row([Cell(name), Cell(_value(value)), Cell(run.origins.get(name, default))], name not in run.origins)
        for name, value in run.settings.items()
    ]
    return Table("settings", [Column("setting"), Column("value"), Column("from")], rows, hide="hide defaults")


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def facts(run: AnyRun) -> Facts:
    """Return what the run came from, the images, the versions, the hashes and the durations."""
    images, made = run.calibration, parts.made_by(run)
    sources = run.sources if isinstance(run, Run) else []
    rows = {
        "model": f"{run.model['name']} ({run.model['kind']}), input {'×'.join(map(str, run.model['input_size']))}",
        "sha256 of the model": made["sha256"],
        "network of the run": ", ".join(each.name for each in sources if each.how == "pruned"),
        "plan of the run": ", ".join(each.name for each in sources if each.how == "planned"),
        "point of the sweep": ", ".join(each.name for each in sources if each.how == "swept"),
        "images": _images(images),
        "sha256 of the images": images.get("sha256", ""),
        "sha256 of the judging images": images.get("judging_sha256", ""),
        "preprocessing": images["preprocess"].get("describe", ""),
        "scoring": made["scoring"],
        "losses of the plans tried": made["plans"],
        "machine": made["machine"],
        "times": made["times"],
        "memory": made["memory"],
        "made": made["made"],
        "files": ", ".join(parts.names_of_files(run)),
    }
    return Facts("", [(name, text) for name, text in rows.items() if text])


def _images(images: dict[str, Any]) -> str:
    uses = {"scored": "score", "fitted": "fit the recovery", "checked": "check it", "evaluated": "judge the result"}
    counts = [f"{images[name]} {use}" for name, use in uses.items() if name in images]
    skipped = [f"{images['skipped']} could not be read"] if images.get("skipped") else []
    return f"{images['images']} in {images['folder']}: {', '.join([*counts, *skipped])}"

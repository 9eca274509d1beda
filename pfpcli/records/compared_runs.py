"""The document of `pfp compare`: runs side by side, what differs, and which of them no other run beats."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pfpcli.records.document import Document
from pfpcli.records.folders import folder_of
from pfpcli.records.measures import COSTS, SHARED, headline, values, values_of_file
from pfpcli.records.provenance import MadeFrom, made_from
from pfpcli.records.runs import AnyRun

#: Settings that say nothing about the result.
_NO_SETTINGS = ("out", "origins")


@dataclass
class FileCompared:
    """A file of a run in a precision below float32.

    Attributes:
        name: "int8" or "fp16".
        measures: as those of the run, as far as they are known: its quality, "drop", and the costs.
        front: as that of the run, of the costs in which files of one network differ.
    """

    name: str
    measures: dict[str, float]
    front: list[str] = field(default_factory=list)


@dataclass
class RunCompared:
    """One run.

    Attributes:
        name: name of its folder; the path as typed where several folders have the name.
        kind: "compress", "sparsify" or "finetune".
        status: "ok", "worse" or "failed".
        metric: name of the quality of the run.
        own_metric: whether this is a metric of the user, which is a number of any size.
        measures: name of a measure -> value, see `pfpcli.records.measures`.
        front: the costs at which no other run has as much quality for as little, some of `RunsCompared.common`; of
            costs in which files of one network differ, no other run and no other file.
        model: name of the original.
        files: its files in precisions below float32.
    """

    name: str
    kind: str
    status: str
    metric: str
    own_metric: bool
    measures: dict[str, float]
    front: list[str]
    model: str = ""
    files: list[FileCompared] = field(default_factory=list)

    @property
    def in_all_precisions(self) -> list[RunCompared | FileCompared]:
        """The run, whose measures are those of its float32 file, and its other files."""
        return [self, *self.files]


@dataclass
class DifferenceFound:
    """Something in which the runs differ.

    Attributes:
        part: "settings", "conditions", "results" or "widths".
        name: what differs: a setting, a condition, a result, a group of channels.
        values: the value in each run, in the order of the runs.
    """

    part: str
    name: str
    values: list[Any]


@dataclass
class RunsCompared(Document):
    """Several runs.

    Attributes:
        quality: the measure by which the runs are compared; "" where they have none in common.
        costs: the costs that at least one run has.
        common: the costs that all runs have; each of them has a front.
        original: the measures of the original network; empty where the runs have different originals.
        runs: the runs, in the order in which they were named.
        differences: everything in which they differ.
        remarks: what makes them hard to compare.
        schema_version: version of the fields. 1: the first one.
        made_from: what the runs were made from beside their models.
    """

    quality: str
    costs: list[str]
    common: list[str]
    original: dict[str, float]
    runs: list[RunCompared]
    differences: list[DifferenceFound]
    remarks: list[str]
    schema_version: int = 1
    made_from: list[MadeFrom] = field(default_factory=list)


def compare(runs: Sequence[tuple[Path, AnyRun]]) -> RunsCompared:
    """Compare runs.

    Args:
        runs: the path of each run folder, or of its run.json, as the user typed it, and its record.
    """
    records = [run for _, run in runs]
    folders = [folder_of(path) for path, _ in runs]
    known = Counter(folder.name for folder in folders)
    names = [folder.name if folder.name and known[folder.name] == 1 else str(folder) for folder in folders]
    measured = [values(run) for run in records]
    quality = _common_quality(records)
    costs = [name for name in COSTS if any(name in each for each in measured)]
    common = [name for name in costs if all(name in each for each in measured)]
    compared = [
        RunCompared(
            name=name,
            kind=run.kind,
            status=run.status,
            metric=headline(run)[0],
            own_metric=getattr(run, "metric", None) is not None,
            measures=found,
            front=[],
            model=str(run.model.get("name")),
            files=list(_files(run)),
        )
        for name, run, found in zip(names, records, measured, strict=True)
    ]
    for cost in common:
        for each in _front(compared, quality, cost):
            each.front.append(cost)
    return RunsCompared(
        quality=quality,
        costs=costs,
        common=common,
        original=_original(records, quality),
        runs=compared,
        differences=_differences(records),
        remarks=list(_remarks(records, quality)),
        made_from=made_from([folder.name for folder in folders], records),
    )


def _files(run: AnyRun) -> Iterator[FileCompared]:
    """The files of a run in precisions below float32."""
    for each in getattr(run, "precisions", [])[1:]:
        if each.file is not None:
            yield FileCompared(each.name, values_of_file(run, each))


def _common_quality(runs: Sequence[AnyRun]) -> str:
    """The measure of quality that all runs have: their metric, or the agreement."""
    metrics = {headline(run)[0] for run in runs}
    if len(metrics) == 1:
        return metrics.pop()
    if len({run.quality.metric for run in runs}) == 1:
        return runs[0].quality.metric
    return "agreement" if all(run.quality.agreement is not None for run in runs) else ""


def _front(runs: Sequence[RunCompared], quality: str, cost: str) -> list[RunCompared | FileCompared]:
    """The runs and files that no other beats: as good in quality and cost, and better in one of them.

    Files of one network share some costs. At these only the runs themselves are compared.
    """
    points = [
        (each, (each.measures[quality], -each.measures[cost]))
        for run in runs
        if run.status != "failed"
        for each in ([run] if cost in SHARED else run.in_all_precisions)
        if {quality, cost} <= each.measures.keys()
    ]
    return [
        each
        for each, point in points
        if not any(other != point and other[0] >= point[0] and other[1] >= point[1] for _, other in points)
    ]


def _original(runs: Sequence[AnyRun], quality: str) -> dict[str, float]:
    """The measures of the original that all runs have in common."""
    if len({run.model.get("sha256") for run in runs}) != 1:
        return {}
    first = next((run for run in runs if run.kind != "finetune"), runs[0])
    found = {
        "params": first.before.params,
        "macs": first.before.macs,
        "size": first.before.file_bytes,
        "latency": getattr(first.before, "latency_ms", None),
    }
    name, before, _ = headline(first)
    if first.kind != "finetune" and name == quality:
        found[name] = before
    return {name: value for name, value in found.items() if value is not None}


def _differences(runs: Sequence[AnyRun]) -> list[DifferenceFound]:
    """Everything in which the runs differ, but for their measures."""
    found: list[DifferenceFound] = []

    def note(part: str, name: str, of: Callable[[AnyRun], Any]) -> None:
        each = [of(run) for run in runs]
        if any(value != each[0] for value in each):
            found.append(DifferenceFound(part, name, each))

    for name in runs[0].settings:
        if name not in _NO_SETTINGS and all(name in run.settings for run in runs):
            note("settings", name, lambda run, name=name: run.settings[name])  # type: ignore[misc]
    note("conditions", "command", lambda run: run.kind)
    note("conditions", "sha256 of the model", lambda run: str(run.model.get("sha256"))[:12])
    for name, title in (("sha256", "sha256 of the images"), ("judging_sha256", "sha256 of the judging images")):
        note("conditions", title, _hash(name))
    note("conditions", "pfp", lambda run: run.pfp_version)
    for name, title in (("images", "images"), ("scored", "scoring images"), ("evaluated", "judging images")):
        note("conditions", title, _calibration(name))
    for name in sorted({name for run in runs for name in run.machine}):
        note("conditions", name, lambda run, name=name: run.machine.get(name))  # type: ignore[misc]
    note("results", "status", lambda run: run.status)
    note("results", "plan", lambda run: [plan["name"] for plan in run.scoring.get("plans", [])[:1]])
    note("results", "recovered by", _recoveries)
    note("results", "model.pt", lambda run: "written" if run.verification.model_pt == "ok" else "not written")
    note("results", "warnings", lambda run: len(run.warnings))
    for name in _groups(runs):
        note("widths", name, lambda run, name=name: _widths(run)[name])  # type: ignore[misc]
    return found


def _calibration(name: str) -> Callable[[AnyRun], Any]:
    return lambda run: run.calibration.get(name)


def _hash(name: str) -> Callable[[AnyRun], Any]:
    """The beginning of a hash of a folder of images; None in older records."""
    return lambda run: (run.calibration.get(name) or "")[:12] or None


def _recoveries(run: AnyRun) -> str:
    found = [f"{each.method} (undone)" if each.undone else each.method for each in getattr(run, "recovery", [])]
    return ", ".join(found) or "none"


def _widths(run: AnyRun) -> dict[str, int]:
    """Group of channels -> how many the result keeps."""
    return {group.name: group.kept for group in getattr(run, "groups", [])}


def _groups(runs: Sequence[AnyRun]) -> list[str]:
    """The groups that all runs have, if they are of one network."""
    if len({run.model.get("sha256") for run in runs}) != 1:
        return []
    widths = [_widths(run) for run in runs]
    return [name for name in widths[0] if all(name in each for each in widths)]


def _remarks(runs: Sequence[AnyRun], quality: str) -> list[str]:
    """What makes the runs hard to compare."""
    found = []
    models = {run.model.get("sha256"): str(run.model.get("name")) for run in runs}
    if len(models) > 1:
        found.append(f"the runs are of {len(models)} networks: {', '.join(models.values())}")
    metrics = list(dict.fromkeys(headline(run)[0] for run in runs))
    if not quality:
        found.append(f"the runs have no measure of quality in common ({', '.join(metrics)}), so there is no front")
    elif len(metrics) > 1:
        found.append(f"the runs have several metrics ({', '.join(metrics)}); they are compared by {quality}")
    hashed = {run.calibration.get("judging_sha256") for run in runs}
    if len({_judged_on(run) for run in runs}) > 1 or (len(hashed) > 1 and None not in hashed):
        found.append("the runs were judged on different images, so their qualities compare only roughly")
    if len({_timed_on(run) for run in runs if getattr(run, "latency", None)}) > 1:
        found.append("the latencies were measured under different conditions")
    return found


def _judged_on(run: AnyRun) -> tuple[Any, ...]:
    """What tells the images that judged a run; held-out ones depend on the seed and on how many images scored."""
    folder, quality = run.settings.get("eval"), run.quality
    if folder:
        return folder, quality.n
    calibration = run.calibration
    divided = (calibration.get("images"), calibration.get("scored"), run.settings.get("seed"))
    return calibration.get("folder"), quality.n, quality.source, *divided


def _timed_on(run: AnyRun) -> tuple[Any, ...]:
    latency = getattr(run, "latency", {})
    return tuple(latency.get(name) for name in ("threads", "batch")) + tuple(
        run.machine.get(name) for name in ("platform", "onnxruntime")
    )

"""Gate: a metric of the user, and how far the quality may fall."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pfpcli.errors import InputError
from pfpcli.images.calibration import Division
from pfpcli.jobs.step_store import NOTHING, StepStore
from pfpcli.jobs.steps.export import ExportedFiles
from pfpcli.progress import Console
from pfpcli.records.parts import Quality, UserMetric
from pfpcli.records.searched import Fall
from pfpcli.settings.max_drop import DECIBELS, MaxDrop

#: `metric(onnx_file, folder)`: a number for a network on a folder of images, higher is better.
Metric = Callable[[str, str], float]

_EXAMPLE = "for example `--metric map.py:mean_average_precision`"


def load_metric(named: str | None) -> Metric | None:
    """Import the function of `FILE.py:FUNCTION`; the file runs, because it was typed.

    Raises:
        InputError: there is no such file or function, or the file fails.
    """
    if named is None:
        return None
    file, _, name = named.rpartition(":")
    path = Path(file)
    if not (file.endswith(".py") and name.isidentifier()):
        raise InputError(f"--metric {named}: expected FILE.py:FUNCTION", _EXAMPLE)
    if not path.is_file():
        raise InputError(f"--metric {named}: there is no file {path.name}", _EXAMPLE)
    spec = importlib.util.spec_from_file_location(f"pfp_metric_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(
            f"--metric {named}: {path.name} fails when it is imported ({_said(error)})", "run it by itself first"
        ) from error
    found: Any = getattr(module, name, None)
    if not callable(found):
        there = [each for each, value in vars(module).items() if callable(value) and not each.startswith("_")]
        raise InputError(
            f"--metric {named}: {path.name} has no function {name}",
            f"it has {', '.join(there)}" if there else "define it there",
        )
    metric: Metric = found
    return metric


def measure_metric(
    metric: Metric | None,
    named: str | None,
    exported: ExportedFiles,
    folder: Path,
    division: Division,
    console: Console,
    before: float | None = None,
    store: StepStore = NOTHING,
) -> UserMetric | None:
    """Measure the ONNX files before and after.

    Args:
        metric: the function; None measures nothing.
        named: how the user named it.
        exported: the files.
        folder: the run folder.
        division: the images; the folder of the judging images is passed on.
        console: shows the step.
        before: the metric of the original, if it is known.
        store: the finished steps of the job.

    Raises:
        InputError: the function fails, or returns something that is no finite number.
    """
    if metric is None or named is None:
        return None
    name = named.rpartition(":")[2]
    with console.step("metric") as step:
        images = str(division.judges.root)
        file = folder / str(exported.files["onnx"])

        def measured() -> UserMetric:
            whole = _value(metric, named, str(exported.original), images) if before is None else before
            return UserMetric(name, whole, _value(metric, named, str(file), images))

        parts = code_of(named), named, file.read_bytes()
        found, step.is_cached = store.value(measured, UserMetric, "metric", *parts)
        step.summary = f"{name} {found.before:.4g} → {found.after:.4g}"
    return found


def code_of(named: str | None) -> bytes:
    """Return the source of the file of a metric; b"" where there is no metric."""
    return b"" if named is None else Path(named.rpartition(":")[0]).read_bytes()


def metric_of(metric: Metric, named: str, file: Path, division: Division) -> float:
    """Measure one ONNX file; arguments and errors as in `measure_metric`."""
    return _value(metric, named, str(file), str(division.judges.root))


def _value(metric: Metric, named: str, file: str, folder: str) -> float:
    hint = "it gets the path of an ONNX file and of the folder of images, and returns a number, higher is better"
    try:
        found = float(metric(file, folder))
    except Exception as error:
        raise InputError(f"--metric {named}: fails ({_said(error)})", hint) from error
    if not math.isfinite(found):
        raise InputError(f"--metric {named}: returned {found}, expected a number", hint)
    return found


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:120]


def gated(
    verdict: tuple[str, str],
    quality: Quality,
    metric: UserMetric | None,
    max_drop: MaxDrop | None,
    searched: Fall | None = None,
) -> tuple[str, str]:
    """The status of a run whose quality must not fall too far: that of `judge.status`, or "failed" and why.

    The gate is on the user's metric if there is one, and on the quality otherwise. A run within its gate is not worse.
    A network that was searched is worse if it falls too far on the images that confirm it, and fails only if they are
    sure of that: it was good enough on those that chose it.

    Args:
        verdict: as `judge.status` returns it.
        quality: of the network.
        metric: of the user, or None.
        max_drop: how far it may fall; None for no gate.
        searched: the fall of a network that was searched (`Search.told`), None for all others.
    """
    if max_drop is None or verdict[0] == "failed":
        return verdict
    if searched is not None:
        name, fallen = searched.metric, searched.fall
        sure = fallen if searched.low is None else searched.low
    else:
        name, before, after = (metric or quality).name_before_after()
        if metric is None and max_drop.unit == DECIBELS:
            name, before, after = quality.decibels()
        fallen = sure = before - after
    # "not <=": a fall that is nan is within no gate
    if not sure <= max_drop.most:
        return "failed", f"{name} fell by {fallen:.4g}, more than --max-drop {max_drop}"
    return ("worse" if fallen > max_drop.most else "ok"), ""

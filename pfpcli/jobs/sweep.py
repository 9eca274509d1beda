"""`pfp sweep`: compress a model to several budgets. Scores and curves are measured once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pfpcli import processes
from pfpcli.errors import InputError
from pfpcli.jobs.compress import write_run
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.steps.gate import Metric, load_metric
from pfpcli.jobs.steps.network import Maker, prepare
from pfpcli.jobs.steps.open import find_device, resources
from pfpcli.jobs.steps.search import check_unit
from pfpcli.planning.curves import Curve
from pfpcli.progress import Console
from pfpcli.records.compared_runs import RunsCompared, compare
from pfpcli.records.folders import FILES, SWEEP, SWEEP_PAGE, page_from, replace_file, run_folder
from pfpcli.records.reading import read
from pfpcli.records.runs import Run
from pfpcli.records.sources import Source, of_files
from pfpcli.records.started import state_folder
from pfpcli.records.unfinished import unfinished
from pfpcli.report import numbers
from pfpcli.report.html import runs as runs_page
from pfpcli.settings import SweepSettings


def sweep(settings: SweepSettings, console: Console) -> Finished[RunsCompared]:
    """Compress a model to several budgets, each into a run folder of its own below one folder, and compare the runs.

    An interrupted sweep keeps its finished runs, and the same command goes on.

    Raises:
        PfpError: it could not be done; finished runs stay.
    """
    if processes.count() > 1:
        raise InputError(
            f"pfp sweep: {processes.count()} processes, expected one",
            "start it without torchrun, or each run by itself",
        )
    device = find_device(settings.device)
    measured = load_metric(settings.metric)
    with resources(settings.threads) as scratch:
        stored_in = state_folder("sweep", settings.folder, settings.recorded())
        ready = prepare(settings.at(min(settings.keeps)), device, scratch, stored_in, console)
        check_unit(ready, settings.max_drop, measured)
        told = {name: value for name, value in settings.recorded().items() if name not in ("out", "keeps", "cache")}
        key = ready.store.path("sweep", told).name
        with unfinished(settings.folder, key) as folder:
            curves: Sequence[Curve] = ()
            runs: list[tuple[str, Run]] = []
            for keep in settings.keeps:
                make = Maker(ready.asked(settings.at(keep), scratch), curves)
                runs.append((_name(keep), _point(make, measured, folder, console)))
                curves = make.curves
                ready.store.drop(ready.store.files)
            for warning in _warnings([run for _, run in runs]):
                console.warn(warning)
            found = compare([(folder / name, run) for name, run in runs])
            replace_file(folder / SWEEP, found.json())
            links = [page_from(folder / name, folder) for name, _ in runs]
            replace_file(folder / SWEEP_PAGE, runs_page.render(found, links))
        ready.store.forget()
    return Finished(found, str(folder))


def _name(keep: float) -> str:
    """The name of a run folder."""
    return f"keep{keep:g}"


def _point(make: Maker, measured: Metric | None, folder: Path, console: Console) -> Run:
    """Make one run, unless it was finished before an interrupt."""
    ready = make.prepared
    keep = ready.settings.fraction
    name = _name(keep)
    with console.step("sweep") as step, console.part(step) as inner:
        if (folder / name / FILES["run"]).is_file():
            run, before = read(folder / name), "finished before: "
            assert isinstance(run, Run)
        else:
            before = ""
            with run_folder(folder / name, name) as draft:
                sources = [*of_files(ready.settings.model, None), Source("swept", folder.resolve().name)]
                run, _ = write_run(ready, make(ready.budget, inner), measured, draft.path, inner, None, sources)
        metric, _, after = (run.metric or run.quality).name_before_after()
        quality = f"{after:.4g}" if run.metric else numbers.share(after)
        latency = f" · {numbers.milliseconds(run.after.latency_ms)} ms" if run.after.latency_ms else ""
        step.summary = f"{before}keep {numbers.percent(keep)}: {metric} {quality}{latency}"
    return run


def _warnings(runs: list[Run]) -> list[str]:
    """The warnings of all runs, each once; one that is not about all runs says about which."""
    about: dict[str, list[str]] = {}
    for run in runs:
        for warning in run.warnings:
            about.setdefault(warning, []).append(f"{run.requested['keep']:g}")
    return [text if len(keeps) == len(runs) else f"keep {', '.join(keeps)}: {text}" for text, keeps in about.items()]

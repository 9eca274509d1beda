"""Steps: what the roads of the pipeline are made of, each with the line it says about itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from pfpcli import processes
from pfpcli.activations.quality import compare, compare_all
from pfpcli.activations.task import Task
from pfpcli.channels.cost import count
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.certificate import certificate, measure
from pfpcli.cutting.cut import Cut, cut
from pfpcli.cutting.reweight import reweight
from pfpcli.cutting.verify import cut_vs_masked
from pfpcli.errors import CheckFailed, InputError, TraceError
from pfpcli.exporting import export
from pfpcli.exporting.latency import Latency, latency
from pfpcli.exporting.rebuild import rebuild
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import from_program, trace
from pfpcli.images.calibration import Calibration, Division, open_calibration
from pfpcli.jobs import cache, describe
from pfpcli.jobs.outcome import ExportedFiles, Scored
from pfpcli.models.load import LoadedModel, load
from pfpcli.models.torchscript import script_to_fx
from pfpcli.onnx_io import write as narrow
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE, onnx_vs_torch
from pfpcli.planning.plan import Budget, Plan, plan
from pfpcli.progress import Console
from pfpcli.records.comparison import Point
from pfpcli.records.record import FILES, Certificate, Quality
from pfpcli.scoring.criteria import CRITERIA
from pfpcli.scoring.score import score
from pfpcli.scoring.scores import set_size
from pfpcli.settings import Calibrated, Compare, Network, Scoring, Settings

#: Images on which the errors of layers are measured, at most.
CERTIFIED = 128


def prepare(settings: Calibrated, console: Console) -> tuple[LoadedModel, Calibration, Groups]:
    """Load the file, open the images, follow the network: what comes before anything is measured.

    Raises:
        CheckFailed: there are ops without a rule, and --strict refuses them.
    """
    source = load_source(settings, console)
    calibration = open_images(settings, source, console)
    groups = trace_groups(source, calibration.size, settings, console)
    if settings.strict:
        _refuse_unknown_ops(groups)
    return source, calibration, groups


def load_source(settings: Network, console: Console) -> LoadedModel:
    """Load the file that was named."""
    with console.step("load") as step:
        source = load(settings.model, arch=settings.arch, arch_kwargs=settings.arch_kwargs, trust=settings.trust)
        step.summary = f"{source.name} · {source.kind.replace('_', ' ')}"
    return source


def open_images(settings: Calibrated, source: LoadedModel, console: Console) -> Calibration:
    """Open the calibration folders and check that they fit."""
    with console.step("images") as step:
        calibration = open_calibration(settings, source)
        classes = f" in {len(calibration.images.classes)} classes" if calibration.images.classes else ", no labels"
        used = calibration.preprocess.describe(calibration.size)
        step.summary = f"{len(calibration.images)} images{classes} · {used}"
    return calibration


def trace_groups(source: LoadedModel, size: tuple[int, ...], settings: Network, console: Console) -> Groups:
    """Follow the network and find what goes together."""
    with console.step("trace") as step:
        graph = _graph(source, size, settings.model)
        groups = group(label(graph), settings.freeze, exact_only=settings.exact_only)
        ops = sum(node.op == "call_function" for node in graph.nodes)
        frozen = len(groups.groups) - len(groups.prunable)
        step.summary = f"{ops} ops · {len(groups.groups)} groups, {len(groups.prunable)} prunable, {frozen} frozen"
    return groups


def _refuse_unknown_ops(groups: Groups) -> None:
    unknown = describe.unknown_ops(groups)
    if unknown:
        names = ", ".join(f"{op} ×{count}" for op, count in unknown.items())
        raise CheckFailed(f"--strict: no rule for {names}", "what they hold back: `pfp inspect MODEL`")


def _graph(source: LoadedModel, size: tuple[int, ...], file: Path) -> Graph:
    generator = torch.Generator().manual_seed(0)
    # with one of a free batch it would be taken for a constant
    example = (torch.randn(source.batch or 2, *size, generator=generator),)
    if source.program is not None:
        return from_program(source.program, example)
    if isinstance(source.module, OnnxNetwork):
        rest = source.module.rest
        graph = replace(trace(source.module, example), stops=rest.ops, unread=rest.unknown)
        _check_reading(graph, source.module, file)
        return graph
    if not isinstance(source.module, torch.jit.ScriptModule):
        return trace(source.module, example)
    try:
        return trace(script_to_fx(source.module, example), example, source.module)
    except TraceError:  # a script that fixes its batch is followed for one input
        return trace(script_to_fx(source.module, (example[0][:1],)), (example[0][:1],), source.module)


def _check_reading(graph: Graph, network: OnnxNetwork, file: Path) -> None:
    """Refuse a file that onnxruntime understands differently."""
    try:
        difference = onnx_vs_torch(network.as_read(file), graph, graph.example)
    except Exception as error:
        said = str(error).strip().partition("\n")[0]
        raise InputError(f"{file.name}: onnxruntime does not run it ({said})", "export it again") from error
    if difference > ONNX_TOLERANCE:
        raise CheckFailed(
            f"{file.name}: what pfp makes of it differs from onnxruntime by {difference:.1e} "
            f"(at most {ONNX_TOLERANCE:.0e} expected)",
            "pass the checkpoint it was exported from",
        )


def score_units(
    groups: Groups,
    calibration: Calibration,
    settings: Scoring,
    criterion: str,
    device: torch.device,
    console: Console,
) -> Scored:
    """Choose the images and score every unit on them, or find the scores in the cache."""
    with console.step("score") as step:
        found = readers(groups)
        needed = CRITERIA[criterion].samples or set_size(found, settings.delta)
        division = calibration.divide(needed, settings.samples)
        name = cache.key(groups, found, division, settings, CRITERIA[criterion].function) if settings.cache else ""
        scores = cache.load(name) if name else None
        before = "cached: " if scores else ""
        if scores is None:
            total, batch = len(division.scored), groups.labelled.graph.fixed_batch
            task = Task(
                groups,
                found,
                lambda: division.scoring(batch),
                device,
                settings.reduce,
                settings.seed,
                lambda done: step.progress(done, total, "images"),
            )
            scores = score(criterion, task)
            if name:
                cache.save(name, scores)
        how = f", {settings.reduce} over the kernel" if scores.layers else ""
        step.summary = f"{before}{scores.samples or 'no'} images · criterion {criterion}{how}"
    return Scored(division, found, scores, round(step.seconds, 3), name)


def try_criterion(
    groups: Groups, scored: Scored, criterion: str, settings: Compare, device: torch.device, console: Console
) -> tuple[list[Point], Quality]:
    """Cut by one criterion at every budget; returns what came of it, and one of the qualities."""
    whole, plans, smaller = groups.labelled.graph, [], []
    with console.step("cut") as step:
        for keep in settings.keeps:
            planned = plan(
                groups,
                scored.scores,
                Budget(keep, settings.keep_of),
                allocate=CRITERIA[criterion].allocate,
                select=CRITERIA[criterion].select,
                delta=settings.delta,
                seed=settings.seed,
            )
            plans.append(planned)
            made = cut(groups.labelled, planned.alive)
            smaller.append(made.graph)
            reweight(made, planned, scored.readers)
        judging = scored.division.judging(whole.fixed_batch)
        found = compare_all(whole, smaller, judging, scored.division.source, device)
        points = [
            Point(criterion, keep, *_kept(planned), q.after, q.agreement, q.distance, scored.seconds)
            for keep, planned, q in zip(settings.keeps, plans, found, strict=True)
        ]
        shown = ", ".join(f"{100 * p.macs:.0f} % of the MACs: {100 * p.quality:.1f} %" for p in points)
        step.summary = f"{found[0].metric} at {shown}"
    return points, found[0]


def _kept(planned: Plan) -> tuple[float, float]:
    """The fractions of parameters and MACs that are kept."""
    before, after = planned.before, planned.after
    return after.params / before.params, after.macs / before.macs


def cut_graph(planned: Plan, console: Console) -> Cut:
    """Cut the network as planned."""
    with console.step("cut") as step:
        labelled = planned.groups.labelled
        made = cut(labelled, planned.alive)
        rows = [row for row in describe.group_rows(planned) if not row.frozen_reason]
        step.summary = f"{sum(row.size for row in rows)} → {sum(row.kept for row in rows)} prunable channels"
    return made


def write_plan(planned: Plan, slicing: Slicing, readers: list[Reader], folder: Path) -> None:
    """Write down what is left of every tensor."""
    (folder / FILES["plan"]).write_text(describe.plan_json(planned, slicing, readers), encoding="utf-8")


def verify_cut(planned: Plan, made: Cut, division: Division, console: Console) -> float:
    """Compare with the masked network and count; returns the largest difference."""
    with console.step("verify") as step:
        masked = cut_vs_masked(made, division.samples(made.graph.batch))
        check_costs(planned, made.graph)
        step.summary = f"cut ≡ masked (max {masked:.0e}) · predicted = counted"
    return masked


def check_costs(planned: Plan, smaller: Graph) -> None:
    """Refuse a network that does not cost what the plan predicted."""
    counted = count(smaller)
    if counted != planned.after:
        raise CheckFailed(
            f"the plan predicted {planned.after}, the cut network has {counted}",
            "this is a bug in pfp: please report it with the model's architecture",
        )


def certify(planned: Plan, scored: Scored, settings: Settings, device: torch.device, console: Console) -> Certificate:
    """Bound the error of each layer and measure it on images that did not score."""
    with console.step("certify") as step:
        division = scored.division
        batches = (images for images, _ in division.judging(planned.groups.labelled.graph.fixed_batch, CERTIFIED))
        measured, images = measure(planned, scored.readers, batches, device)
        layers = certificate(
            planned, scored.readers, scored.scores, reduce=settings.reduce, delta=settings.delta, measured=measured
        )
        bounds = [row.bound for row in layers if row.bound is not None]
        said = sum(bound < 1 for bound in bounds)
        about = f"bounds for {said} of {len(bounds)} layers" if bounds else "no bounds"
        largest = max((row.measured or 0.0 for row in layers), default=0.0)
        step.summary = f"{about} · largest error measured {largest:.2g}, {images} {division.source}"
    return Certificate(settings.delta, images, division.source, layers)


def evaluate(whole: Graph, smaller: Graph, division: Division, device: torch.device, console: Console) -> Quality:
    """Compare the networks on images that did not score."""
    with console.step("evaluate") as step:
        judging = division.judging(whole.fixed_batch)
        quality = compare(whole, smaller, judging, division.source, device)
        both = quality.metric == "accuracy"
        shown = f"{100 * quality.before:.1f} → " if both else ""
        step.summary = f"{quality.metric} {shown}{100 * quality.after:.1f} % · {quality.n} {quality.source}"
    return quality


def export_files(
    source: LoadedModel,
    made: Cut,
    division: Division,
    folder: Path,
    scratch: Path,
    console: Console,
) -> ExportedFiles:
    """Write the models of a run, each run again."""
    with console.step("export") as step:
        whole, smaller = made.slicing.labelled.graph, made.graph
        # a batch size it has not been exported with, where that is free
        samples = [division.samples(smaller.fixed_batch or 3)]
        named = source.names or export.names(whole)
        original, onnx = scratch / FILES["onnx"], folder / FILES["onnx"]
        program = export.program(smaller)
        export.save_pt2(program, folder / FILES["pt2"])
        difference, exported = None, ""
        timed, is_whole = (original, onnx), True
        if isinstance(source.module, OnnxNetwork) and source.module.file is not None:
            network = source.module
            narrow.copy(source.module.file, original)
            try:
                difference = narrow.save(network, whole, smaller, onnx, samples)
                is_whole = narrow.runs(network, original, samples)
                of = network.whole if is_whole else network.as_read
                timed = of(original), of(onnx)
            except narrow.CannotNarrow as error:
                exported, is_whole = narrow.lost(network, str(error)), not network.rest.places
                timed = network.as_read(original), onnx
        else:
            export.save_onnx(export.program(whole), whole, named, original, samples)
        if difference is None:
            difference = export.save_onnx(program, smaller, named, onnx, samples)
        model_pt = _save_module(source, smaller, folder / FILES["pt"])
        files = {kind: file if (folder / file).exists() or kind == "run" else None for kind, file in FILES.items()}
        models = [file for kind, file in files.items() if file and kind.startswith(("onnx", "pt"))]
        free = ", ".join(export.open_sizes(onnx)) or "no size"
        step.summary = f"{' · '.join(models)} · {free} open · onnx ≡ torch (max {difference:.0e})"
    sizes = original.stat().st_size, onnx.stat().st_size
    return ExportedFiles(files, sizes, difference, model_pt, timed, is_whole, exported)


def _save_module(source: LoadedModel, smaller: Graph, path: Path) -> str:
    """Write model.pt where the input was a module; returns "ok" or why there is none."""
    if source.kind not in ("module", "state_dict"):
        return f"the input is no module: {source.kind}"
    module, reason = rebuild(source.module, smaller)
    if module is not None:
        torch.save(module, path)
    return reason


def measure_latency(
    smaller: Graph, division: Division, written: ExportedFiles, settings: Settings, console: Console
) -> tuple[tuple[Latency, Latency], int]:
    """Time both networks in onnxruntime; returns the figures and how many inputs went at a time."""
    with console.step("measure") as step:
        inputs = division.samples(smaller.fixed_batch or 1)
        before, after = latency(written.timed, [inputs], settings.threads)
        step.summary = f"{before.median_ms:.3g} → {after.median_ms:.3g} ms in onnxruntime"
    return (before, after), len(inputs)


def find_device(wanted: str) -> torch.device:
    """The device that was asked for."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, there in available.items() if there)
    if not available[wanted]:
        raise InputError(f"--device {wanted}: torch finds no such device here", "use `--device auto` or `--device cpu`")
    return processes.own(torch.device(wanted))


@contextmanager
def resources(settings: Calibrated) -> Iterator[Path]:
    """A scratch folder, and torch's CPU threads as asked for, for the time of a run."""
    before = torch.get_num_threads()
    torch.set_num_threads(settings.threads or before)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            yield Path(scratch)
    finally:
        torch.set_num_threads(before)

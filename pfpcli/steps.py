"""Steps: what the roads of the pipeline are made of, each with the line it says about itself."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from pfpcli import describe, export
from pfpcli.calibration import Calibration, Division, open_calibration
from pfpcli.console import Console
from pfpcli.cost import count
from pfpcli.criteria import CRITERIA
from pfpcli.cut import Cut, cut
from pfpcli.errors import CheckFailed, InputError, TraceError
from pfpcli.flow import label
from pfpcli.graph import Graph
from pfpcli.groups import Groups, group
from pfpcli.latency import Latency, latency
from pfpcli.load import Source, load
from pfpcli.outcome import Scored, Written
from pfpcli.plan import Budget, Plan, nothing_to_prune, plan
from pfpcli.quality import compare
from pfpcli.readers import readers
from pfpcli.rebuild import rebuild
from pfpcli.record import FILES, Quality
from pfpcli.score import Task, score, set_size
from pfpcli.settings import Calibrated, Network, Settings
from pfpcli.torchscript import script_to_fx
from pfpcli.trace import from_program, trace
from pfpcli.verify import cut_vs_masked


def load_source(settings: Network, console: Console) -> Source:
    """Load the file that was named."""
    with console.step("load") as step:
        source = load(settings.model, arch=settings.arch, arch_kwargs=settings.arch_kwargs, trust=settings.trust)
        step.summary = f"{source.name} · {source.kind.replace('_', ' ')}"
    return source


def open_images(settings: Calibrated, source: Source, console: Console) -> Calibration:
    """Open the calibration folders and check that they fit."""
    with console.step("images") as step:
        calibration = open_calibration(settings, source)
        classes = f" in {len(calibration.images.classes)} classes" if calibration.images.classes else ", no labels"
        used = calibration.preprocess.describe(calibration.size)
        step.summary = f"{len(calibration.images)} images{classes} · {used}"
    return calibration


def trace_groups(source: Source, size: tuple[int, ...], settings: Network, console: Console) -> Groups:
    """Follow the network and find what goes together."""
    with console.step("trace") as step:
        graph = _graph(source, size)
        groups = group(label(graph), settings.freeze, exact_only=settings.exact_only)
        ops = sum(node.op == "call_function" for node in graph.nodes)
        frozen = len(groups.groups) - len(groups.prunable)
        step.summary = f"{ops} ops · {len(groups.groups)} groups, {len(groups.prunable)} prunable, {frozen} frozen"
    return groups


def refuse_unknown_ops(groups: Groups) -> None:
    """Do what --strict asks for.

    Raises:
        CheckFailed: there are ops without a rule.
    """
    unknown = describe.unknown_ops(groups)
    if unknown:
        names = ", ".join(f"{op} ×{count}" for op, count in unknown.items())
        raise CheckFailed(f"--strict: no rule for {names}", "what they hold back: `pfp inspect MODEL`")


def _graph(source: Source, size: tuple[int, ...]) -> Graph:
    generator = torch.Generator().manual_seed(0)
    example = (torch.randn(_batch(source), *size, generator=generator),)
    if source.program is not None:
        return from_program(source.program, example)
    if not isinstance(source.module, torch.jit.ScriptModule):
        return trace(source.module, example)
    try:
        return trace(script_to_fx(source.module, example), example, source.module)
    except TraceError:  # a script that fixes its batch is followed for one input
        return trace(script_to_fx(source.module, (example[0][:1],)), (example[0][:1],), source.module)


def _batch(source: Source) -> int:
    """Two, unless the file says that it has to be another number."""
    if source.program is None:
        return 2
    inputs = [n for n in source.program.graph.nodes if n.name in source.program.graph_signature.user_inputs]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise InputError(
            f"{source.name}: takes {len(inputs)} inputs ({names}); calibration images feed exactly one",
            "wrap the model in a module whose forward takes one tensor, and export that",
        )
    size = inputs[0].meta["val"].shape[0]
    return size if isinstance(size, int) else 2


def score_units(
    groups: Groups, calibration: Calibration, settings: Settings, device: torch.device, console: Console
) -> Scored:
    """Choose the images and score every unit on them."""
    with console.step("score") as step:
        found = readers(groups)
        if not any(reader.units.any() for reader in found):
            raise nothing_to_prune(groups)
        division = calibration.divide(set_size(found, settings.delta), settings.samples)
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
        scores = score(settings.criterion, task)
        how = f", {settings.reduce} over the kernel" if scores.layers else ""
        step.summary = f"{scores.samples or 'no'} images · criterion {settings.criterion}{how}"
    return Scored(division, found, scores)


def make_plan(groups: Groups, scored: Scored, settings: Settings, console: Console) -> Plan:
    """Decide what goes."""
    with console.step("plan") as step:
        criterion = CRITERIA[settings.criterion]
        budget = Budget(settings.keep, settings.keep_of, settings.epsilon, settings.multiple_of, settings.min_channels)
        planned = plan(
            groups,
            scored.scores,
            budget,
            allocate=criterion.allocate,
            select=criterion.select,
            delta=settings.delta,
            seed=settings.seed,
        )
        what = {"params": "parameters", "macs": "MACs"}[budget.of]
        asked = f"asked {100 * budget.keep:g} %" if budget.epsilon is None else f"asked ε ≤ {budget.epsilon:g}"
        epsilon = f" → ε = {planned.epsilon:.3g}" if planned.epsilon is not None and budget.epsilon is None else ""
        step.summary = f"keep {100 * planned.achieved:.1f} % of the {what}, {asked}{epsilon}"
    return planned


def cut_graph(planned: Plan, console: Console) -> tuple[Cut, Graph]:
    """Cut it; returns what is left of every tensor, and the network made of it."""
    with console.step("cut") as step:
        labelled = planned.groups.labelled
        kept, smaller = Cut(labelled, planned.alive), cut(labelled, planned.alive)
        rows = [row for row in describe.group_rows(planned) if not row.frozen_reason]
        step.summary = f"{sum(row.size for row in rows)} → {sum(row.kept for row in rows)} prunable channels"
    return kept, smaller


def verify_cut(planned: Plan, smaller: Graph, division: Division, console: Console) -> float:
    """Compare with the masked network and count; returns the largest difference."""
    with console.step("verify") as step:
        masked = cut_vs_masked(planned.groups.labelled, planned.alive, smaller, division.samples(smaller.batch))
        counted = count(smaller)
        if counted != planned.after:
            raise CheckFailed(
                f"the plan predicted {planned.after}, the cut network has {counted}",
                "this is a bug in pfp: please report it with the model's architecture",
            )
        step.summary = f"cut ≡ masked (max {masked:.0e}) · predicted = counted"
    return masked


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
    source: Source,
    kept: Cut,
    planned: Plan,
    smaller: Graph,
    division: Division,
    folder: Path,
    scratch: Path,
    console: Console,
) -> Written:
    """Write the files of a run, each run again."""
    with console.step("export") as step:
        whole = kept.labelled.graph
        # a batch size it has not been exported with, where that is free
        samples = [division.samples(smaller.fixed_batch or 3)]
        named = export.names(whole)
        original, onnx = scratch / FILES["onnx"], folder / FILES["onnx"]
        export.save_onnx(export.program(whole), whole, named, original, samples)
        program = export.program(smaller)
        export.save_pt2(program, folder / FILES["pt2"])
        difference = export.save_onnx(program, smaller, named, onnx, samples)
        model_pt = _save_module(source, kept, smaller, folder / FILES["pt"])
        (folder / FILES["plan"]).write_text(describe.plan_json(planned, kept), encoding="utf-8")
        files = {kind: file if (folder / file).exists() or kind == "run" else None for kind, file in FILES.items()}
        models = [file for kind, file in files.items() if file and kind.startswith(("onnx", "pt"))]
        free = ", ".join(export.open_sizes(onnx)) or "no size"
        step.summary = f"{' · '.join(models)} · {free} open · onnx ≡ torch (max {difference:.0e})"
    return Written(files, (original.stat().st_size, onnx.stat().st_size), difference, model_pt)


def _save_module(source: Source, kept: Cut, smaller: Graph, path: Path) -> str:
    """Write model.pt where the input was a module; returns "ok" or why there is none."""
    if source.kind not in ("module", "state_dict"):
        return f"the input is no module: {source.kind}"
    module, reason = rebuild(source.module, kept, smaller)
    if module is not None:
        torch.save(module, path)
    return reason


def measure_latency(
    smaller: Graph, division: Division, folder: Path, scratch: Path, settings: Settings, console: Console
) -> tuple[tuple[Latency, Latency], int]:
    """Time both networks in onnxruntime; returns the figures and how many inputs went at a time."""
    with console.step("measure") as step:
        inputs = division.samples(smaller.fixed_batch or 1)
        before, after = latency([scratch / FILES["onnx"], folder / FILES["onnx"]], [inputs], settings.threads)
        step.summary = f"{before.median_ms:.3g} → {after.median_ms:.3g} ms in onnxruntime"
    return (before, after), len(inputs)


def find_device(wanted: str) -> torch.device:
    """The device that was asked for."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, there in available.items() if there)
    if not available[wanted]:
        raise InputError(f"--device {wanted}: torch finds no such device here", "use `--device auto` or `--device cpu`")
    return torch.device(wanted)


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

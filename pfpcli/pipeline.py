"""The roads from a checkpoint to a run folder, or to a look at it: the order of the steps, and what each one says."""

from __future__ import annotations

from pfpcli import describe, export, steps
from pfpcli.console import Console
from pfpcli.errors import InputError
from pfpcli.inspection import Inspection
from pfpcli.outcome import Outcome, SparseOutcome
from pfpcli.plan import without
from pfpcli.record import FILES, Run, SparseRun, Verification, run_folder
from pfpcli.reweight import reweight
from pfpcli.settings import Network, Settings, Sparsity
from pfpcli.sparse import channels
from pfpcli.verify import TOLERANCE
from pfpcli.warn import warnings_about, warnings_about_sparse


def compress(settings: Settings, console: Console) -> tuple[Run, str]:
    """Compress a model and write a run folder.

    Returns:
        (the record, the name of the folder).

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = steps.find_device(settings.device)
    with (
        run_folder(settings.out, settings.name) as (folder, name),
        steps.resources(settings) as scratch,
    ):
        source = steps.load_source(settings, console)
        calibration = steps.open_images(settings, source, console)
        groups = steps.trace_groups(source, calibration.size, settings, console)
        if settings.strict:
            steps.refuse_unknown_ops(groups)
        scored = steps.score_units(groups, calibration, settings, device, console)
        planned = steps.make_plan(groups, scored, settings, console)
        kept, smaller = steps.cut_graph(planned, console)
        masked = steps.verify_cut(planned, smaller, scored.division, console)
        if planned.is_sampled:
            reweight(smaller, kept, planned, scored.readers)
        quality = steps.evaluate(groups.labelled.graph, smaller, scored.division, device, console)
        steps.write_plan(planned, kept, folder)
        written = steps.export_files(source, kept, smaller, scored.division, folder, scratch, console)
        timed, batch = steps.measure_latency(smaller, scored.division, folder, scratch, settings, console)
        tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": export.ONNX_TOLERANCE}
        checked = Verification(masked, written.onnx_vs_torch, written.model_pt, tolerances)
        outcome = Outcome(
            settings, device, source, groups, scored, planned, kept, smaller, quality, checked, written, timed, batch
        )
        for message in warnings_about(outcome):
            console.warn(message)
        run = describe.record(outcome, console)
        (folder / FILES["run"]).write_text(run.json(), encoding="utf-8")
    return run, name


def sparsify(settings: Sparsity, console: Console) -> tuple[SparseRun, str]:
    """Set single weights of a model to zero and write a run folder.

    Returns:
        (the record, the name of the folder).

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = steps.find_device(settings.device)
    with (
        run_folder(settings.out, settings.name) as (folder, name),
        steps.resources(settings) as scratch,
    ):
        source = steps.load_source(settings, console)
        calibration = steps.open_images(settings, source, console)
        groups = steps.trace_groups(source, calibration.size, settings, console)
        if settings.strict:
            steps.refuse_unknown_ops(groups)
        weighed = steps.weigh(groups, calibration, settings, device, console)
        chosen, division = steps.choose_weights(weighed, settings, console), weighed.division
        kept, smaller, dead = steps.thin_graph(groups, weighed, chosen, console)
        planned, masked = None, None
        if settings.cut_dead:
            planned = without(groups, dead)
            kept, smaller, masked = steps.cut_dead(smaller, planned, weighed, chosen, console)
            steps.write_plan(planned, kept, folder)
        errors = steps.measure_errors(groups, weighed, chosen, device, console)
        quality = steps.evaluate(groups.labelled.graph, smaller, division, device, console)
        written = steps.export_files(source, kept, smaller, division, folder, scratch, console)
        deflated = steps.deflate(scratch / FILES["onnx"], folder / FILES["onnx"])
        tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": export.ONNX_TOLERANCE}
        checked = Verification(masked, written.onnx_vs_torch, written.model_pt, tolerances)
        idle = channels(groups, dead)
        outcome = SparseOutcome(
            settings,
            device,
            source,
            groups,
            weighed,
            chosen,
            idle,
            planned,
            smaller,
            errors,
            quality,
            checked,
            written,
            deflated,
        )
        for message in warnings_about_sparse(outcome):
            console.warn(message)
        run = describe.sparse_record(outcome, console)
        (folder / FILES["run"]).write_text(run.json(), encoding="utf-8")
    return run, name


def inspect(settings: Network, console: Console) -> Inspection:
    """Look at a model: what can be cut, what cannot, and why.

    Raises:
        PfpError: it could not be loaded or followed.
    """
    source = steps.load_source(settings, console)
    size = settings.input_size or source.input_size
    if size is None:
        raise InputError(
            f"{source.name}: the file does not say how large its input is",
            "say it with --input-size C,H,W, e.g. `--input-size 3,224,224`",
        )
    return describe.inspection(source, size, steps.trace_groups(source, size, settings, console))

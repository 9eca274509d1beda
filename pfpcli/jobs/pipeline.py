"""The roads from a checkpoint to a run folder, or to a look at it: the order of the steps, and what each one says."""

from __future__ import annotations

import json

from pfpcli import processes
from pfpcli.channels.reading_layers import readers
from pfpcli.cutting import certificate
from pfpcli.cutting.plan_file import replan
from pfpcli.cutting.reweight import reweight
from pfpcli.cutting.verify import TOLERANCE
from pfpcli.errors import InputError, UnsupportedError
from pfpcli.jobs import describe, plan_steps, recover_steps, sparse_steps, steps, train_steps
from pfpcli.jobs.outcome import Outcome, SparseOutcome, TunedOutcome
from pfpcli.jobs.warn import warnings_about, warnings_about_sparse, warnings_about_tuned
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE
from pfpcli.planning.plan import nothing_to_prune, without
from pfpcli.progress import Console
from pfpcli.records import record
from pfpcli.records.certified import Certified, LayerChecked
from pfpcli.records.comparison import Comparison, Point
from pfpcli.records.folders import run_folder
from pfpcli.records.inspection import Inspection
from pfpcli.records.ranking import Ranking
from pfpcli.records.record import FILES, Run, SparseRun, TunedRun, Verification
from pfpcli.report.comparison import FILES as COMPARISONS
from pfpcli.settings import Certify, Compare, Finetune, Network, Rank, Settings, Sparsity
from pfpcli.sparsity.sparse import channels


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
        source, calibration, groups = steps.prepare(settings, console)
        if not groups.prunable:
            raise nothing_to_prune(groups)
        scored = steps.score_units(groups, calibration, settings, settings.criterion, device, console)
        made = None
        if settings.steps == 1:
            planned = plan_steps.make_plan(groups, scored, settings, device, console)
        else:
            planned, made = plan_steps.plan_in_steps(groups, scored, calibration, settings, device, console)
        cut = steps.cut_graph(planned, console)
        slicing, smaller = cut
        masked = steps.verify_cut(planned, cut, scored.division, console)
        if made is not None:
            recover_steps.adopt(smaller, made)
        elif planned.is_sampled:
            reweight(cut, planned, scored.readers)
        recovered = recover_steps.recover(cut, scored.division, settings, device, console)
        certified = steps.certify(planned, scored, settings, device, console)
        quality = steps.evaluate(groups.labelled.graph, smaller, scored.division, device, console)
        processes.finish()
        steps.write_plan(planned, slicing, scored.readers, folder)
        written = steps.export_files(source, cut, scored.division, folder, scratch, console)
        timed, batch = steps.measure_latency(smaller, scored.division, written, settings, console)
        tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": ONNX_TOLERANCE}
        checked = Verification(masked, written.onnx_vs_torch, written.model_pt, tolerances)
        outcome = Outcome(
            settings,
            device,
            source,
            groups,
            scored,
            planned,
            cut,
            recovered,
            quality,
            checked,
            certified,
            written,
            timed,
            batch,
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
        source, calibration, groups = steps.prepare(settings, console)
        weighed = sparse_steps.weigh(groups, calibration, settings, device, console)
        chosen, division = sparse_steps.choose_weights(weighed, settings, console), weighed.division
        cut, dead = sparse_steps.thin_graph(groups, weighed, chosen, console)
        planned, masked = None, None
        if settings.cut_dead:
            planned = without(groups, dead)
            cut, masked = sparse_steps.cut_dead(cut.graph, planned, weighed, chosen, console)
            steps.write_plan(planned, cut.slicing, readers(groups), folder)
        errors = sparse_steps.measure_errors(groups, weighed, chosen, device, console)
        smaller = cut.graph
        quality = steps.evaluate(groups.labelled.graph, smaller, division, device, console)
        processes.finish()
        written = steps.export_files(source, cut, division, folder, scratch, console)
        deflated = sparse_steps.deflate(scratch / FILES["onnx"], folder / FILES["onnx"])
        tolerances = {"cut_vs_masked": TOLERANCE, "onnx_vs_torch": ONNX_TOLERANCE}
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


def finetune(settings: Finetune, console: Console) -> tuple[TunedRun, str]:
    """Train the network of a run with labels and write a run folder.

    Returns:
        (the record, the name of the folder).

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    run = train_steps.open_run(settings)
    device = steps.find_device(settings.device)
    with (
        run_folder(settings.folder, settings.folder.name) as (folder, name),
        steps.resources(settings) as scratch,
    ):
        calibration, division, groups = train_steps.open_data(settings, console)
        teacher = train_steps.load_teacher(settings, run, calibration.size, console)
        cut, training = train_steps.fine_tune(groups, teacher, division, settings, device, console)
        quality = steps.evaluate(groups.labelled.graph, cut.graph, division, device, console)
        written = train_steps.write(settings, cut, division, folder, scratch, console)
        checked = Verification(None, written.onnx_vs_torch, written.model_pt, {"onnx_vs_torch": ONNX_TOLERANCE})
        outcome = TunedOutcome(settings, device, run, groups, division, training, quality, checked, written)
        for message in warnings_about_tuned(outcome):
            console.warn(message)
        made = describe.tuned_record(outcome, console)
        (folder / FILES["run"]).write_text(made.json(), encoding="utf-8")
    return made, name


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


def score(settings: Rank, console: Console) -> Ranking:
    """Score the channels of a model.

    Raises:
        PfpError: it could not be done.
    """
    device = steps.find_device(settings.device)
    with steps.resources(settings):
        source, calibration, groups = steps.prepare(settings, console)
        scored = steps.score_units(groups, calibration, settings, settings.criterion, device, console)
    for remark in scored.scores.remarks:
        console.warn(remark)
    return describe.ranking(source, groups, scored, settings)


def compare_criteria(settings: Compare, console: Console) -> tuple[Comparison, str]:
    """Cut a model by several criteria at several budgets and write a table and a chart.

    Returns:
        (the comparison, the name of the folder).

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    device = steps.find_device(settings.device)
    with run_folder(settings.out, settings.name) as (folder, name), steps.resources(settings):
        source, calibration, groups = steps.prepare(settings, console)
        if not groups.prunable:
            raise nothing_to_prune(groups)
        points: list[Point] = []
        skipped: dict[str, str] = {}
        for criterion in settings.criteria:
            try:
                scored = steps.score_units(groups, calibration, settings, criterion, device, console)
            except UnsupportedError as error:
                skipped[criterion] = error.message
                continue
            made, quality = steps.try_criterion(groups, scored, criterion, settings, device, console)
            points += made
            for remark in scored.scores.remarks:
                console.warn(f"{criterion}: {remark}")
        if not points:
            raise UnsupportedError("; ".join(skipped.values()), "name other criteria with --criteria")
        processes.finish()
        compared = describe.comparison(source, settings, scored.division, points, quality, skipped, console)
        for file, write in COMPARISONS.items():
            (folder / file).write_text(write(compared), encoding="utf-8")
    return compared, name


def certify(settings: Certify, console: Console) -> Certified:
    """Measure the errors of a run's layers on other images.

    Raises:
        PfpError: the run or the images cannot be used.
    """
    run = record.read(settings.run)
    if not isinstance(run, Run):
        raise InputError(f"{settings.run.name}: not a run of `pfp compress`", "its bounds stand in `pfp report`")
    device = steps.find_device(settings.device)
    with steps.resources(settings):
        source = steps.load_source(settings, console)
        if source.sha256 != run.model["sha256"]:
            raise InputError(
                f"{source.name}: not the file that {settings.run.name} was made of ({run.model['name']})",
                "name that one",
            )
        calibration = steps.open_images(settings, source, console)
        groups = steps.trace_groups(source, calibration.size, settings, console)
        found = readers(groups)
        content = json.loads((settings.run / FILES["plan"]).read_text(encoding="utf-8"))
        planned = replan(content, groups, found)
        with console.step("certify") as step:
            batches = (images for images, _ in calibration.batches(groups.labelled.graph.fixed_batch))
            measured, images = certificate.measure(planned, found, batches, device)
            step.summary = f"{len(measured)} layers · {images} images"
    bounds = {row.name: row for row in run.certificate.layers}
    layers = [LayerChecked(name, bounds[name].bound, bounds[name].measured, here) for name, here in measured.items()]
    return Certified(settings.run.name, source.name, calibration.images.name, images, layers)

"""`pfp finetune`: train the network of a run with labels and write a run folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import Cut, cut
from pfpcli.errors import CalibrationError, InputError
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration, Division
from pfpcli.jobs import warnings
from pfpcli.jobs.finished import Finished
from pfpcli.jobs.recorded import run_fields
from pfpcli.jobs.step_store import StepStore, open_store
from pfpcli.jobs.steps.export import ExportedFiles, OnnxWriter, export_files
from pfpcli.jobs.steps.judge import evaluate
from pfpcli.jobs.steps.open import find_device, load_model, open_images, resources, trace_groups, with_roles
from pfpcli.jobs.steps.record import write_record
from pfpcli.models.load import load
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io.runtime import ONNX_TOLERANCE
from pfpcli.outputs.kinds.classes import softened
from pfpcli.outputs.quality import compare
from pfpcli.outputs.roles import real
from pfpcli.progress import Console
from pfpcli.records.details import Details
from pfpcli.records.folders import FILES, run_folder
from pfpcli.records.parts import Training, Verification
from pfpcli.records.reading import read
from pfpcli.records.runs import Run, TunedRun
from pfpcli.records.started import state_folder
from pfpcli.recovery.augment import moved
from pfpcli.recovery.distill import checking
from pfpcli.recovery.loss_on_device import Loss
from pfpcli.recovery.train import Check, Schedule, train
from pfpcli.recovery.training_batches import Labels, TrainingBatches, batch_size
from pfpcli.settings import FinetuneSettings

#: Largest batch.
BATCH = 64


def finetune(settings: FinetuneSettings, console: Console) -> Finished[TunedRun]:
    """Train the network of a run with labels and write a run folder.

    Raises:
        PfpError: it could not be done; nothing is left behind.
    """
    run = _open_run(settings)
    device, out = find_device(settings.device), settings.folder
    with run_folder(out, out.name) as folder, resources(settings.threads) as scratch:
        model, calibration, groups = _open_data(settings, console)
        division = calibration.divide(1, None)
        stored_in = state_folder("finetune", out, settings.recorded())
        store = open_store(stored_in, model, groups.labelled.graph, division, console)
        teacher = _load_teacher(settings, run, calibration.size, console)
        made, training = _train(groups, teacher, division, settings, device, store, console)
        quality, behaviour = evaluate(groups.labelled.graph, made.graph, division, device, console, store)
        shutil.copyfile(settings.run / FILES["plan"], folder.path / FILES["plan"])
        model, reason = _module(settings)
        writer = OnnxWriter(model, groups.labelled.graph, division.samples, scratch, store)
        exported = export_files(model, made, writer, folder.path, console, store)
        exported = replace(exported, model_pt=reason) if reason else exported
        tolerances = {"onnx_vs_torch": ONNX_TOLERANCE}
        verification = Verification(None, exported.onnx_vs_torch, exported.model_pt, tolerances)
        warnings.warn(console, _warnings(settings, training, division, groups.labelled.graph, exported))
        tuned = TunedRun(
            **run_fields(settings, groups, division, quality, verification, exported, device, console),
            model=run.model,
            run=settings.run.name,
            before=run.before,
            after=replace(run.after, file_bytes=exported.file_bytes[1]),
            scoring=run.scoring,
            training=training,
        )
        write_record(tuned, Details(behaviour=behaviour), folder.path)
    store.forget()
    return Finished(tuned, folder.name, exported.module)


def _open_run(settings: FinetuneSettings) -> Run | TunedRun:
    """The record of the run whose network is trained.

    Raises:
        InputError: it is no run of `pfp compress` or `pfp finetune`.
    """
    found = read(settings.run)
    if not isinstance(found, Run | TunedRun):
        raise InputError(
            f"{settings.run.name}: a run of `pfp {found.kind}`, whose zeros training would fill",
            "name a run of `pfp compress`",
        )
    return found


def _open_data(settings: FinetuneSettings, console: Console) -> tuple[LoadedModel, Calibration, Groups]:
    """The network of a run, and labelled images for it.

    Raises:
        CalibrationError: the images do not fit the network, or their classes its outputs.
    """
    # the architecture that the run remembers is that of the original; this is an exported program
    model = load_model(replace(settings, arch=None, arch_kwargs=None), console)
    try:
        calibration = open_images(settings, model, console)
    except CalibrationError as error:
        named = (text.replace("--calib", "--data") for text in (error.message, error.hint))
        raise CalibrationError(*named) from error
    groups = trace_groups(model, calibration.size, settings, console)
    check_classes(calibration, groups.labelled.graph)
    return model, calibration, with_roles(groups, model, calibration, settings)


def check_classes(calibration: Calibration, graph: Graph) -> None:
    """Refuse labels that are not those of the network: label i is output i.

    Raises:
        CalibrationError: there are no labels, or not as many as outputs, or the network is traced only in part.
    """
    if graph.is_undecided:
        ops = ", ".join(dict.fromkeys(graph.stops))
        raise CalibrationError(
            f"the network is followed up to {ops}; class labels say nothing about what goes in there",
            "train it by what the original says there: `pfp compress … --recover lsq,distill`",
        )
    output = next((node.meta["val"] for node in graph.outputs if node.meta["val"].is_floating_point()), None)
    sizes = () if output is None else tuple(output.shape[1:])
    if len(sizes) != 1:
        raise CalibrationError(
            f"the network puts out {'×'.join(map(str, sizes)) or 'one number'} for an image; labels need a number for "
            "each class",
            "train what was written with a program of your own",
        )
    for images in filter(None, (calibration.images, calibration.judges)):
        if images.labels is None:
            raise CalibrationError(
                f"{images.name}: no labels", "put the images of each class into a folder of their own there"
            )
        classes = len(images.classes) if images.classes else int(images.labels.max()) + 1
        if classes != sizes[0] and (images.classes or classes > sizes[0]):
            raise CalibrationError(
                f"{images.name}: {classes} classes, the network has {sizes[0]} outputs",
                "name a folder with a sub-folder for each output; their sorted names are the order of the outputs",
            )


def _load_teacher(
    settings: FinetuneSettings, run: Run | TunedRun, size: tuple[int, ...], console: Console
) -> Graph | None:
    """The model that the run was made of, if it is to teach.

    Raises:
        InputError: it is another file.
    """
    if settings.teacher is None:
        return None
    found = replace(settings, model=settings.teacher)
    model = load_model(found, console)
    if model.sha256 != run.model["sha256"]:
        raise InputError(
            f"{model.name}: not the file that {settings.run.name} was made of ({run.model['name']})",
            "name that one with --teacher",
        )
    return trace_groups(model, size, found, console).labelled.graph


def _train(
    groups: Groups,
    teacher: Graph | None,
    division: Division,
    settings: FinetuneSettings,
    device: torch.device,
    store: StepStore,
    console: Console,
) -> tuple[Cut, Training]:
    """Train a copy of the network; returns it, and the figures of the training."""
    with console.step("train") as step:
        graph = groups.labelled.graph
        made = cut(groups.labelled, groups.alive(np.zeros(0, np.int64)))
        networks = [made.graph] if teacher is None else [made.graph, teacher]
        fixed = any(each.fixed_batch for each in networks)
        size = batch_size(networks, device, BATCH)
        stream = TrainingBatches(division.calibration, division.fitted, size, fixed=fixed, seed=settings.seed)
        checked = checking(division, graph.fixed_batch)

        def accuracy() -> float:
            batches = division.calibration.batches(graph.fixed_batch, checked)
            return compare(graph, made.graph, batches, "", device).after

        schedule = Schedule(settings.most_epochs, settings.minutes, settings.lr)
        limits = (schedule.epochs, schedule.minutes, schedule.rate, settings.seed, settings.augment)
        state = store.path("training", *limits, settings.weight, teacher or b"", device.type)
        with graph.on(device), (teacher or graph).on(device):
            found = train(
                made.graph,
                _loss(made.graph, teacher, settings),
                Check(accuracy, len(checked)),
                stream,
                schedule,
                device,
                state=state,
                progress=lambda done, best: step.progress(
                    round(100 * done), 100, f"% of the training, accuracy {100 * best:.1f} %"
                ),
            )
        step.summary = (
            f"{found.epochs:.3g} epochs of {stream.images} images · accuracy {100 * found.before:.1f} → "
            f"{100 * found.after:.1f} % on {len(checked)} others"
        )
    training = Training(
        round(found.epochs, 2),
        round(found.seconds, 2),
        stream.images,
        len(checked),
        (found.before, found.after),
        settings.teacher.name if settings.teacher else None,
        settings.weight,
    )
    return made, training


def _loss(network: Graph, teacher: Graph | None, settings: FinetuneSettings) -> Loss:
    """Cross-entropy with the labels and, in its share, the divergence from the teacher's outputs."""

    def loss(x: Tensor, labels: Labels, generator: torch.Generator) -> Tensor:
        assert labels is not None
        x = moved(x, generator) if settings.augment else x
        found = real(network(x))[0]
        hard = F.cross_entropy(found.float(), torch.from_numpy(labels).to(found.device))
        if teacher is None:
            return hard
        with torch.no_grad():
            wanted = real(teacher(x))[0]
        return (1 - settings.weight) * hard + settings.weight * softened(found, wanted)

    return loss


def _module(settings: FinetuneSettings) -> tuple[LoadedModel, str]:
    """The model that model.pt is made of: that of the run, or its exported program and why there is no model.pt."""
    file = settings.run / FILES["pt"]
    assert isinstance(settings.model, Path)
    program = load(settings.model, trust=settings.trust)
    if not file.exists():
        return program, f"{settings.run.name} has none"
    try:
        return load(file, trust=settings.trust), ""
    except InputError as error:
        return program, f"that of {settings.run.name} cannot be opened ({error.message})"


def _warnings(
    settings: FinetuneSettings, training: Training, division: Division, graph: Graph, exported: ExportedFiles
) -> Iterator[str]:
    """What a user should know about a fine-tuning; "" where there is nothing to say."""
    yield "" if training.has_helped else warnings.did_not_help(settings.run.name)
    yield warnings.optimistic(division)
    yield warnings.fixed_batch(graph)
    yield warnings.exported_anew(exported)
    yield warnings.skipped_images(division)

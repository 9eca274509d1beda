"""Steps of `pfp finetune` that are its own: the network of a run is opened, trained with labels, and written."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.activations.losses import real
from pfpcli.activations.quality import compare
from pfpcli.channels.groups import Groups
from pfpcli.cutting.cut import Cut, cut
from pfpcli.errors import CalibrationError, InputError
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Calibration, Division
from pfpcli.jobs import cache, steps
from pfpcli.jobs.outcome import ExportedFiles
from pfpcli.models.load import LoadedModel, load
from pfpcli.progress import Console
from pfpcli.records import record
from pfpcli.records.record import FILES, Run, Training, TunedRun
from pfpcli.recovery.augment import moved
from pfpcli.recovery.distill import checking, divergence
from pfpcli.recovery.stream import Labels, Stream, batch_size
from pfpcli.recovery.train import Check, Loss, Schedule, train
from pfpcli.settings import Finetune

#: Images at a time, at most.
BATCH = 64


def open_run(settings: Finetune) -> Run | TunedRun:
    """The record of the run whose network is to be trained.

    Raises:
        InputError: it is none of `pfp compress` or `pfp finetune`.
    """
    found = record.read(settings.run)
    if not isinstance(found, Run | TunedRun):
        raise InputError(
            f"{settings.run.name}: a run of `pfp {found.kind}`, whose zeros training would fill",
            "name a run of `pfp compress`",
        )
    return found


def open_data(settings: Finetune, console: Console) -> tuple[Calibration, Division, Groups]:
    """The network of a run and labelled images for it: which of them train, which check, and which judge.

    Raises:
        CalibrationError: the images do not fit the network, or their classes its outputs.
    """
    # the run's --arch is about the original: this is an exported program
    source = steps.load_source(replace(settings, arch=None, arch_kwargs=None), console)
    try:
        calibration = steps.open_images(settings, source, console)
    except CalibrationError as error:
        named = (text.replace("--calib", "--data") for text in (error.message, error.hint))
        raise CalibrationError(*named) from error
    groups = steps.trace_groups(source, calibration.size, settings, console)
    check_classes(calibration, groups.labelled.graph)
    return calibration, calibration.divide(1, None), groups


def check_classes(calibration: Calibration, graph: Graph) -> None:
    """Refuse labels that are not those of the network: label i is its output i.

    Raises:
        CalibrationError: there are no labels, or not as many as outputs, or something is picked by the outputs.
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


def load_teacher(settings: Finetune, run: Run | TunedRun, size: tuple[int, ...], console: Console) -> Graph | None:
    """The model the run was made of, if it is to teach.

    Raises:
        InputError: it is another file.
    """
    if settings.teacher is None:
        return None
    found = replace(settings, model=settings.teacher)
    source = steps.load_source(found, console)
    if source.sha256 != run.model["sha256"]:
        raise InputError(
            f"{source.name}: not the file that {settings.run.name} was made of ({run.model['name']})",
            "name that one with --teacher",
        )
    return steps.trace_groups(source, size, found, console).labelled.graph


def fine_tune(
    groups: Groups,
    teacher: Graph | None,
    division: Division,
    settings: Finetune,
    device: torch.device,
    console: Console,
) -> tuple[Cut, Training]:
    """Train a copy of the network; returns it, and what training came to."""
    with console.step("train") as step:
        graph, alive = groups.labelled.graph, groups.alive(np.zeros(0, np.int64))
        made = cut(groups.labelled, alive)
        tuned = made.graph
        taking_part = [tuned] if teacher is None else [tuned, teacher]
        size = batch_size(taking_part, device, BATCH)
        fixed = any(each.fixed_batch for each in taking_part)
        stream = Stream(division.calibration, division.fitted, size, fixed=fixed, seed=settings.seed)
        checked = checking(division, graph.fixed_batch)

        def accuracy() -> float:
            batches = division.calibration.batches(graph.fixed_batch, checked)
            return compare(graph, tuned, batches, "", device).after

        schedule = Schedule(settings.most_epochs, settings.minutes, settings.lr)
        told = (schedule.epochs, schedule.minutes, schedule.rate, settings.seed, settings.augment, settings.weight)
        state = cache.training(graph, division, *told)
        with console.resumable(state), graph.on(device), (teacher or graph).on(device):
            found = train(
                tuned,
                _loss(tuned, teacher, settings),
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
    return (
        made,
        Training(
            round(found.epochs, 2),
            round(found.seconds, 2),
            stream.images,
            len(checked),
            (found.before, found.after),
            settings.teacher.name if settings.teacher else None,
            settings.weight,
        ),
    )


def _loss(tuned: Graph, teacher: Graph | None, settings: Finetune) -> Loss:
    """Cross-entropy to the labels and, in its share, the divergence from what the teacher says of the same images."""

    def loss(x: Tensor, labels: Labels, generator: torch.Generator) -> Tensor:
        assert labels is not None
        x = moved(x, generator) if settings.augment else x
        found = real(tuned.module(x))[0]
        hard = F.cross_entropy(found.float(), torch.from_numpy(labels).to(found.device))
        if teacher is None:
            return hard
        with torch.no_grad():
            wanted = real(teacher.module(x))[0]
        return (1 - settings.weight) * hard + settings.weight * divergence(found, wanted)

    return loss


def write(
    settings: Finetune, made: Cut, division: Division, folder: Path, scratch: Path, console: Console
) -> ExportedFiles:
    """Write the files of a run: the plan as it was, and the models."""
    shutil.copyfile(settings.run / FILES["plan"], folder / FILES["plan"])
    source, reason = _module(settings)
    written = steps.export_files(source, made, division, folder, scratch, console)
    return replace(written, model_pt=reason) if reason else written


def _module(settings: Finetune) -> tuple[LoadedModel, str]:
    """What model.pt is made of: the run's own, or its exported program and why there is none."""
    file = settings.run / FILES["pt"]
    program = load(settings.model, trust=settings.trust)
    if not file.exists():
        return program, f"{settings.run.name} has none"
    try:
        return load(file, trust=settings.trust), ""
    except InputError as error:
        return program, f"that of {settings.run.name} cannot be opened ({error.message})"

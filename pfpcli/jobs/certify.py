"""`pfp certify`: measure the errors of a run's layers on other images, and compare them with its bounds."""

from __future__ import annotations

from pfpcli.channels.reading_layers import readers
from pfpcli.cutting.certificate import measure
from pfpcli.cutting.plan_file import PlanFile
from pfpcli.errors import InputError
from pfpcli.jobs.steps.open import find_device, load_model, open_images, resources, trace_groups
from pfpcli.progress import Console
from pfpcli.records.certified import Certified, LayerChecked
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read
from pfpcli.records.runs import Run
from pfpcli.settings import CertifySettings


def certify(settings: CertifySettings, console: Console) -> Certified:
    """Measure the errors of a run's layers on other images.

    Raises:
        PfpError: the run or the images cannot be used.
    """
    run = read(settings.run)
    if not isinstance(run, Run):
        raise InputError(f"{settings.run.name}: not a run of `pfp compress`", "its bounds stand in `pfp report`")
    plan_file = PlanFile.read(settings.run / FILES["plan"])
    device = find_device(settings.device)
    with resources(settings.threads):
        model = load_model(settings, console)
        if model.sha256 != run.model["sha256"]:
            raise InputError(
                f"{model.name}: not the file that {settings.run.name} was made of ({run.model['name']})",
                "name that one",
            )
        calibration = open_images(settings, model, console)
        groups = trace_groups(model, calibration.size, settings, console)
        found = readers(groups)
        planned = plan_file.plan(groups, found)
        with console.step("certify") as step:
            batches = (images for images, _ in calibration.batches(groups.labelled.graph.fixed_batch))
            measured, images = measure(planned, found, batches, device)
            step.summary = f"{len(measured)} layers · {images} images"
    bounds = {row.name: row for row in run.certificate.layers}
    if unknown := measured.keys() - bounds.keys():
        raise InputError(
            f"{settings.run.name}: {FILES['run']} has no errors of {min(unknown)}, which the plan cuts",
            "name a run folder as `pfp compress` wrote it",
        )
    layers = [LayerChecked(name, bounds[name].bound, bounds[name].measured, here) for name, here in measured.items()]
    return Certified(settings.run.name, model.name, calibration.images.name, images, layers)

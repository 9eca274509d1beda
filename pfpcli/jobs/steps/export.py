"""Export: write the models of a run, run each of them again, and time them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import onnx
import torch
from torch import nn

from pfpcli.cutting.cut import Cut
from pfpcli.exporting import export
from pfpcli.exporting.latency import Latency, latency
from pfpcli.exporting.rebuild import rebuild
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io import write
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.rewrite import CannotRewrite
from pfpcli.progress import Console
from pfpcli.records.folders import FILES, LAST

#: ONNX files before and after, or their contents.
OnnxPair = tuple[Path | onnx.ModelProto, Path | onnx.ModelProto]


@dataclass(frozen=True)
class ExportedFiles:
    """The result of the export step.

    Attributes:
        files: kind -> file name in the run folder, or None.
        file_bytes: sizes of the ONNX files before and after.
        onnx_vs_torch: largest relative difference between model.onnx and the network in torch.
        model_pt: "ok", or why there is no model.pt.
        timed: the ONNX networks before and after whose latency is measured.
        is_whole: whether they are the whole files.
        exported: why torch exported an ONNX network anew, and what the file lost by that; "" where it did not.
        original: ONNX file of the original; it is gone after the job.
        module: the user's own module with the smaller tensors, None where it does not fit them.
    """

    files: dict[str, str | None]
    file_bytes: tuple[int, int]
    onnx_vs_torch: float
    model_pt: str
    timed: OnnxPair
    is_whole: bool
    original: Path
    exported: str = ""
    module: nn.Module | None = None


def export_files(
    model: LoadedModel, made: Cut, division: Division, folder: Path, scratch: Path, console: Console
) -> ExportedFiles:
    """Write model.onnx, model.pt2 and, where it fits, model.pt.

    Args:
        model: the network that came in.
        made: the cut network.
        division: images to run the files on.
        folder: the run folder.
        scratch: a folder for the ONNX file of the original.
        console: shows the step.
    """
    with console.step("export") as step:
        whole, smaller = made.slicing.labelled.graph, made.graph
        # a batch size that the files were not exported with, where it is free
        samples = [division.samples(smaller.fixed_batch or 3)]
        named = model.names or export.names(whole)
        original, onnx_file = scratch / FILES["onnx"], folder / FILES["onnx"]
        program = export.program(smaller)
        export.save_pt2(program, folder / FILES["pt2"])
        step.progress(1, 3, "files")
        difference, exported = None, ""
        timed: OnnxPair = (original, onnx_file)
        is_whole = True
        if isinstance(model.module, OnnxNetwork) and model.module.file is not None:
            network = model.module
            write.copy(model.module.file, original)
            try:
                difference = write.save(network, whole, smaller, onnx_file, samples)
                is_whole = write.runs(network, original, samples)
                of = network.whole if is_whole else network.as_read
                timed = of(original), of(onnx_file)
            except CannotRewrite as error:
                exported, is_whole = write.lost_by_export(network, str(error)), not network.untouched.nodes
                timed = network.as_read(original), onnx_file
        else:
            export.save_onnx(export.program(whole), whole, named, original, samples)
        step.progress(2, 3, "files")
        if difference is None:
            difference = export.save_onnx(program, smaller, named, onnx_file, samples)
        module, model_pt = _save_module(model, smaller, folder / FILES["pt"])
        files = {kind: file if (folder / file).exists() or kind in LAST else None for kind, file in FILES.items()}
        models = [file for kind, file in files.items() if file and kind.startswith(("onnx", "pt"))]
        free = ", ".join(export.open_sizes(onnx_file)) or "no size"
        step.summary = f"{' · '.join(models)} · {free} open · onnx ≡ torch (max {difference:.0e})"
    sizes = original.stat().st_size, onnx_file.stat().st_size
    return ExportedFiles(files, sizes, difference, model_pt, timed, is_whole, original, exported, module)


def mark_failed(exported: ExportedFiles, folder: Path) -> ExportedFiles:
    """Rename the models of a run whose network is worth nothing: model.onnx becomes failed-model.onnx."""
    files = dict(exported.files)
    for kind in ("onnx", "pt2", "pt"):
        name = files[kind]
        if name is not None:
            files[kind] = f"failed-{name}"
            (folder / name).rename(folder / f"failed-{name}")
    return replace(exported, files=files)


def measure_latency(
    smaller: Graph, division: Division, exported: ExportedFiles, threads: int | None, console: Console
) -> tuple[tuple[Latency, Latency], int]:
    """Time both networks in onnxruntime; returns the latencies and the batch size."""
    with console.step("measure") as step:
        inputs = division.samples(smaller.fixed_batch or 1)
        before, after = latency(exported.timed, [inputs], threads)
        step.summary = f"{before.median_ms:.3g} → {after.median_ms:.3g} ms in onnxruntime"
    return (before, after), len(inputs)


def _save_module(model: LoadedModel, smaller: Graph, path: Path) -> tuple[nn.Module | None, str]:
    """Write model.pt where the input was a module; returns the module, and "ok" or why there is no file."""
    if model.kind not in ("module", "state_dict"):
        return None, f"the input is no module: {model.kind}"
    module, reason = rebuild(model.module, smaller)
    if module is not None:
        try:
            torch.save(module, path)
        except Exception as error:  # whatever pickle raises about a class that it cannot find again
            path.unlink(missing_ok=True)
            return module, f"its class cannot be pickled ({str(error).strip().splitlines()[0]})"
    return module, reason

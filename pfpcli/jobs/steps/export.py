"""Export: write the models of a run, run each of them again, and time them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import onnx
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from pfpcli import memory
from pfpcli.cutting.cut import Cut
from pfpcli.exporting import export
from pfpcli.exporting.program import program_of
from pfpcli.exporting.rebuild import rebuild
from pfpcli.graph.graph import Graph
from pfpcli.images.calibration import Division
from pfpcli.jobs.step_store import NOTHING, StepStore
from pfpcli.latency.files import BLOCKS, Latency, latency
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.onnx_io import write
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.rewrite import CannotRewrite
from pfpcli.progress import Console
from pfpcli.records.folders import FILES, LAST
from pfpcli.settings import CompressSettings

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


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file of a cut network.

    Attributes:
        difference: largest relative difference between the file and the network in torch.
        is_whole: whether the latency of the whole file can be measured.
        exported: as in `ExportedFiles`.
    """

    difference: float
    is_whole: bool = True
    exported: str = ""


class OnnxWriter:
    """Writes ONNX files of networks that are cut from one original, and one of the original.

    Args:
        model: the network that came in.
        whole: its graph.
        samples: returns so many samples, float[N, ...], to run the files on.
        scratch: a folder for the ONNX file of the original.
        store: the finished steps of the job.

    Attributes:
        scratch: this folder.
    """

    def __init__(
        self,
        model: LoadedModel,
        whole: Graph,
        samples: Callable[[int], Tensor],
        scratch: Path,
        store: StepStore = NOTHING,
    ) -> None:
        self._model, self._whole, self._draw, self._store = model, whole, samples, store
        self._named = model.names or export.names(whole)
        self.scratch = scratch
        self._original = scratch / FILES["onnx"]

    @cached_property
    def _samples(self) -> list[Tensor]:
        # a batch size that the files were not exported with, where it is free
        return [self._draw(self._whole.fixed_batch or 3)]

    @property
    def original(self) -> Path:
        """The ONNX file of the original."""
        if not self._original.exists():
            module = self._model.module
            if isinstance(module, OnnxNetwork) and module.file is not None:
                write.copy(module.file, self._original)
            else:
                write_it, sha = partial(self._exported, self._whole, self._original), self._model.sha256
                self._store.value_and_files(write_it, float, [self._original], "original", sha)
        return self._original

    def write(self, smaller: Graph, path: Path, program: ExportedProgram | None = None) -> OnnxFile:
        """Write the ONNX file of a cut network and compare it with torch.

        Args:
            smaller: the network.
            path: the file.
            program: the network as a program, if it is made already.

        Raises:
            CheckFailed: no file can be written that agrees with torch.
        """
        original, module = self.original, self._model.module
        if not isinstance(module, OnnxNetwork) or module.file is None:
            return OnnxFile(self._exported(smaller, path, program))
        try:
            difference = write.save(module, self._whole, smaller, path, self._samples)
            return OnnxFile(difference, write.runs(module, original, self._samples))
        except CannotRewrite as error:
            lost = write.lost_by_export(module, str(error))
        return OnnxFile(self._exported(smaller, path, program), not module.untouched.nodes, lost)

    def to_time(self, graphs: Sequence[Graph | None], inputs: Sequence[Tensor]) -> list[Path | onnx.ModelProto]:
        """Return ONNX networks that are timed and nothing else.

        Args:
            graphs: networks cut from the original; None stands for the original.
            inputs: float[N, ...] for each input, that they are timed on.

        Raises:
            CheckFailed: one cannot be written.
        """
        paths = [self.scratch / f"timed-{i}.onnx" for i in range(len(graphs))]
        if not isinstance(self._model.module, OnnxNetwork):
            with suppress(Exception):  # whatever the older exporter raises about an op that it does not know
                for path, graph in zip(paths, graphs, strict=True):
                    path.write_bytes(export.quickly(graph or self._whole, self._named, inputs).SerializeToString())
                    memory.drop_cycles()
                return [*paths]
        pairs = [
            None if graph is None else self.timed(path, self.write(graph, path))
            for path, graph in zip(paths, graphs, strict=True)
        ]
        original = next(before for before, _ in filter(None, pairs))
        return [original if pair is None else pair[1] for pair in pairs]

    def timed(self, path: Path, written: OnnxFile) -> OnnxPair:
        """Return the ONNX networks before and after whose latency is measured.

        Args:
            path: the file of the cut network.
            written: what `write` returned about it.
        """
        module = self._model.module
        if not isinstance(module, OnnxNetwork) or module.file is None:
            return self.original, path
        if written.exported:
            return module.as_read(self.original), path
        of = module.whole if written.is_whole else module.as_read
        return of(self.original), of(path)

    def _exported(self, graph: Graph, path: Path, program: ExportedProgram | None = None) -> float:
        program = program or program_of(graph)
        return export.save_onnx(program, graph, self._named, path, self._samples)


@dataclass(frozen=True)
class _Written:
    """What is told about the ONNX file of a network, and about model.pt."""

    onnx: OnnxFile
    model_pt: str


def export_files(
    model: LoadedModel, made: Cut, writer: OnnxWriter, folder: Path, console: Console, store: StepStore = NOTHING
) -> ExportedFiles:
    """Write model.onnx, model.pt2 and, where it fits, model.pt.

    Args:
        model: the network that came in.
        made: the cut network.
        writer: writes the ONNX files.
        folder: the run folder.
        console: shows the step.
        store: the finished steps of the job.
    """
    smaller, onnx_file = made.graph, folder / FILES["onnx"]
    modules: list[nn.Module | None] = []

    def written() -> _Written:
        _ = writer.original
        memory.drop_and_give_back()  # exporters leave programs that refer to themselves, and pieces of files
        step.progress(1, 3, "files")
        program = program_of(smaller)
        export.save_pt2(program, folder / FILES["pt2"])
        step.progress(2, 3, "files")
        told = writer.write(smaller, onnx_file, program)
        memory.drop_and_give_back()
        module, model_pt = _save_module(model, smaller, folder / FILES["pt"])
        modules.append(module)
        return _Written(told, model_pt)

    with console.step("export") as step:
        paths = [folder / FILES[kind] for kind in ("onnx", "pt2", "pt")]
        parts = smaller, model.kind, model.sha256
        found, step.is_cached = store.value_and_files(written, _Written, paths, "export", *parts)
        if step.is_cached:
            modules.append(_rebuilt(model, smaller)[0])
        original, onnx_told = writer.original, found.onnx
        files = {kind: file if (folder / file).exists() or kind in LAST else None for kind, file in FILES.items()}
        models = [file for kind, file in files.items() if file and kind.startswith(("onnx", "pt"))]
        free = ", ".join(export.open_sizes(onnx_file)) or "no size"
        step.summary = f"{' · '.join(models)} · {free} open · onnx ≡ torch (max {onnx_told.difference:.0e})"
    sizes = original.stat().st_size, onnx_file.stat().st_size
    return ExportedFiles(
        files,
        sizes,
        onnx_told.difference,
        found.model_pt,
        writer.timed(onnx_file, onnx_told),
        onnx_told.is_whole,
        original,
        onnx_told.exported,
        modules[0],
    )


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
    smaller: Graph, division: Division, exported: ExportedFiles, settings: CompressSettings, console: Console
) -> tuple[tuple[Latency, Latency], int]:
    """Time both networks in onnxruntime; returns the latencies and the batch size.

    A run that a latency was asked of takes more blocks, until the interval of the speed-up is narrow (`latency.files`).
    """
    most = None if settings.measure == "latency" else BLOCKS
    with console.step("measure") as step:
        inputs = division.samples(smaller.fixed_batch or 1)
        before, after = latency(exported.timed, [inputs], settings.threads, most)
        step.summary = f"{before.median_ms:.3g} → {after.median_ms:.3g} ms in onnxruntime"
    return (before, after), len(inputs)


def _save_module(model: LoadedModel, smaller: Graph, path: Path) -> tuple[nn.Module | None, str]:
    """Write model.pt where the input was a module; returns the module, and "ok" or why there is no file."""
    module, reason = _rebuilt(model, smaller)
    if module is not None:
        try:
            torch.save(module, path)
        except Exception as error:  # whatever pickle raises about a class that it cannot find again
            path.unlink(missing_ok=True)
            return module, f"its class cannot be pickled ({str(error).strip().splitlines()[0]})"
    return module, reason


def _rebuilt(model: LoadedModel, smaller: Graph) -> tuple[nn.Module | None, str]:
    """Return the user's own module with the smaller tensors, and "ok" or why there is none."""
    if model.kind not in ("module", "state_dict"):
        return None, f"the input is no module: {model.kind}"
    return rebuild(model.module, smaller)

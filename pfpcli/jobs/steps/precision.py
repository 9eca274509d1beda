"""Precision: write the cut network as int8 and float16 files, and measure them beside the float file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import onnx

from pfpcli.errors import InputError
from pfpcli.exporting.float_blocks import find_float_blocks
from pfpcli.exporting.int8 import CannotConvert
from pfpcli.exporting.lower_precision import CONVERSIONS, Reading, Source, converted, source_of
from pfpcli.jobs.steps.export import ExportedFiles
from pfpcli.jobs.steps.gate import Metric, metric_of
from pfpcli.jobs.steps.network import Network, Prepared
from pfpcli.latency.files import latency
from pfpcli.onnx_io.network import OnnxNetwork
from pfpcli.onnx_io.runtime import OnnxRunner
from pfpcli.outputs.losses import distance
from pfpcli.outputs.quality import compare_all
from pfpcli.outputs.roles import real, roles_of, select
from pfpcli.progress import Console, Step
from pfpcli.records.folders import FILES, PRECISIONS
from pfpcli.records.parts import Quality
from pfpcli.records.precision import Precision

#: Layers stay in float32 until no output moves by more than this: the squared distance from the float network's output,
#: relative to the spread of that output. It is the square of a tenth.
LIMIT = 0.01
#: The same for the float network itself once it is prepared, which only rounds.
SAME = 1e-6
#: The most images on which the distance is measured.
CHECKED = 64


@dataclass(frozen=True)
class _Files:
    """The float network, and what the search measures with.

    Attributes:
        ready: what the network was made of.
        exported: its files.
        folder: the run folder.
        scratch: a folder for temporary files.
        as_read: reads the part of a file that pfp computes.
        timed: reads what is timed.
    """

    ready: Prepared
    exported: ExportedFiles
    folder: Path
    scratch: Path
    as_read: Reading
    timed: Reading

    @property
    def float32(self) -> Path:
        """The float file."""
        return self.folder / FILES["onnx"]

    def loss(self, model: onnx.ModelProto) -> float:
        """Return how far the outputs of a converted network are from the float network's, see `LIMIT`."""
        file = self.scratch / "candidate.onnx"
        onnx.save(model, file)
        before, after = (OnnxRunner(self.as_read(each)) for each in (self.float32, file))
        graph, division = self.ready.groups.labelled.graph, self.ready.division
        roles = roles_of(graph)
        batches = (division.checking if len(division.checked) else division.fitting)(graph.fixed_batch, CHECKED)
        sums = np.zeros((len(roles), 2))
        for images, _ in batches:
            sums += distance(*(select(real(each(images)), roles) for each in (after, before))).numpy()
        moved = sums[:, 0] / np.maximum(sums[:, 1], np.finfo(np.float32).tiny)
        return float(moved.max(initial=0.0))


def write_precisions(
    ready: Prepared,
    network: Network,
    exported: ExportedFiles,
    quality: Quality,
    measured: Metric | None,
    folder: Path,
    console: Console,
) -> tuple[ExportedFiles, list[Precision]]:
    """Write the files of the precisions that are asked for.

    A file that cannot be written has a reason in its record; the run goes on.

    Args:
        ready: what the network was made of.
        network: the network.
        exported: its files so far.
        quality: of its float file.
        measured: the metric of the user, or None.
        folder: the run folder.
        console: shows the steps.

    Returns:
        (the files with the new ones, the float network and each precision); no precisions where none is asked for.
    """
    wanted = ready.settings.precisions
    if not wanted:
        return exported, []
    with tempfile.TemporaryDirectory() as scratch:
        files = _Files(ready, exported, folder, Path(scratch), *_readings(ready, exported))
        source = cache(lambda: _source(files, console))
        rows = [_written(files, source, name, console) for name in wanted]
        rows = [Precision("float32", FILES["onnx"], layers=max(row.layers for row in rows)), *rows]
        _judge([row for row in rows if row.file], files, network, quality, console)
        if ready.target is not None:
            counted = next((row for row in rows[1:] if row.file and row.name == ready.settings.timed_in), None)
            if counted is not None:
                counted.share = ready.target[0].part_of(exported.timed[0], files.timed(folder / str(counted.file)))
    if measured is not None:
        for row in rows:
            row.metric = _metric(row, files, measured)
    made = {row.name: row.file for row in rows[1:]}
    return replace(exported, files={**exported.files, **made}), rows


def _source(files: _Files, console: Console) -> Source | str:
    """Prepare the float network; returns the reason where it cannot be converted."""
    ready = files.ready
    try:
        with console.step("ranges") as step:
            division = ready.division
            batches = (images for images, _ in division.fitting(ready.groups.labelled.graph.fixed_batch))
            source = source_of(files.float32, files.as_read, batches, files.scratch)
            if (moved := files.loss(source.model)) > SAME:
                raise CannotConvert(
                    f"preparing it for onnxruntime's tools moves its outputs by {100 * moved**0.5:.2g} %"
                )
            step.summary = f"{source.images} of {len(division.fitted)} images · {len(source.ranges.keys())} tensors"
    except Exception as error:  # the tools of onnxruntime raise any kind of error
        return _said(error)
    return source


def _readings(ready: Prepared, exported: ExportedFiles) -> tuple[Reading, Reading]:
    """How files are read: the part that pfp computes, and what is timed."""
    network = ready.model.module
    if not isinstance(network, OnnxNetwork) or network.file is None or exported.exported:
        return (lambda file: file), (lambda file: file)
    return network.as_read, network.whole if exported.is_whole else network.as_read


def _said(error: Exception) -> str:
    if not isinstance(error, CannotConvert):
        return f"onnxruntime's tools fail: {' '.join(str(error).split())[:120] or type(error).__name__}"
    return str(error)


@dataclass(frozen=True)
class _Made:
    """What the search for a file of a precision came to: its record, and its content; b"" where there is no file."""

    row: Precision
    content: bytes


def _written(files: _Files, source: Callable[[], Source | str], precision: str, console: Console) -> Precision:
    """Write a file of a precision, unless it was written before an interrupt."""
    path = files.folder / PRECISIONS[precision]

    def made() -> _Made:
        row = _converted(files, source(), precision, path, console)
        return _Made(row, path.read_bytes() if row.file else b"")

    parts = precision, files.float32.read_bytes(), files.ready.model.kind
    found, cached = files.ready.store.value(made, _Made, "precision", *parts)
    if cached:
        with console.step(precision) as step:
            step.summary, step.is_cached = found.row.file or found.row.why, True
            if found.row.file:
                path.write_bytes(found.content)
    return found.row


def _converted(files: _Files, source: Source | str, precision: str, path: Path, console: Console) -> Precision:
    """Write a file of a precision, with the blocks in float32 that it needs."""
    if isinstance(source, str):
        return Precision(precision, None, why=source)
    try:
        with console.step(precision) as step:
            row = _searched(files, source, precision, path, step)
    except Exception as error:  # as above
        path.unlink(missing_ok=True)
        return Precision(precision, None, why=_said(error), layers=len(source.layers(source.nodes(_all(source)))))
    return row


def _searched(files: _Files, source: Source, precision: str, path: Path, step: Step) -> Precision:
    tried = 0

    def loss(blocks: frozenset[int]) -> float:
        nonlocal tried
        tried += 1
        step.progress(tried, max(tried, len(source.blocks) + 6), "networks")
        return files.loss(CONVERSIONS[precision](source, source.nodes(blocks)))

    found = find_float_blocks(len(source.blocks), loss, LIMIT)
    if len(found.blocks) == len(source.blocks):
        raise CannotConvert("its outputs move too far with any of its layers in that precision")
    in_float = source.nodes(found.blocks)
    onnx.save(converted(source, precision, in_float), path)
    names = source.layers(in_float | source.overflowing if precision == "fp16" else in_float)
    layers = len(source.layers(source.nodes(_all(source))))
    OnnxRunner(files.timed(path))
    moved = found.loss**0.5
    step.summary = f"{path.name} · {layers - len(names)} of {layers} layers · outputs moved by {100 * moved:.2g} %"
    return Precision(
        precision,
        path.name,
        layers=layers,
        in_float=names,
        distance=float(f"{found.loss:.4g}"),
        calibrated=source.images,
    )


def _all(source: Source) -> range:
    return range(len(source.blocks))


def _judge(rows: Sequence[Precision], files: _Files, network: Network, quality: Quality, console: Console) -> None:
    """Measure size, quality and latency of the files; the rows are changed."""
    ready = files.ready
    with console.step("compare") as step:
        graph, division = ready.groups.labelled.graph, ready.division
        paths = [files.folder / str(row.file) for row in rows]
        judging = step.counted(division.judging(graph.fixed_batch), len(division.judged))
        runners = [OnnxRunner(files.as_read(path)) for path in paths[1:]]
        found = compare_all(graph, runners, judging, division.source, ready.device) if runners else []
        inputs = division.samples(network.made.graph.fixed_batch or 1)
        timed = latency([files.timed(path) for path in paths], [inputs], ready.settings.threads)
        for row, path, each, now in zip(rows, paths, timed, [quality, *found], strict=True):
            row.file_bytes, row.quality = path.stat().st_size, now
            row.latency_ms, row.latency_iqr_ms = round(each.median_ms, 4), round(each.iqr_ms, 4)
        shown = (f"{row.name} {100 * row.quality.at(quality)[1]:.1f} %" for row in rows if row.quality)
        step.summary = f"{quality.metric}: {' · '.join(shown)}"


def _metric(row: Precision, files: _Files, measured: Metric) -> float | None:
    if row.file is None:
        return None
    try:
        return metric_of(measured, str(files.ready.settings.metric), files.folder / row.file, files.ready.division)
    except InputError:  # the user's function may not take a file of another precision
        return None

"""`pfp bench`: time several networks in turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnxruntime
import torch
from torch import Tensor

from pfpcli._version import __version__
from pfpcli.errors import InputError
from pfpcli.jobs.recorded import speed_up_row
from pfpcli.jobs.steps.export import OnnxWriter
from pfpcli.jobs.steps.open import input_size, load_model, resources, sizeless, trace_groups
from pfpcli.latency.files import Latency, speed_up, time_in_turn
from pfpcli.latency.stopwatch import machine
from pfpcli.onnx_io.runtime import run_onnx, session
from pfpcli.progress import Console
from pfpcli.records.benched import Bench, Benched
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read
from pfpcli.settings import NetworkSettings
from pfpcli.settings.bench import BenchSettings

#: Runs one inference of some inputs.
Run = Callable[[Tensor], object]


@dataclass(frozen=True)
class _Network:
    """A network that can be run.

    Attributes:
        name: of the file or run folder.
        size: shape of one input.
        batch: the only batch size that it takes; None for any.
        run: runs it.
    """

    name: str
    size: tuple[int, ...]
    batch: int | None
    run: Run


def bench(settings: BenchSettings, console: Console) -> Bench:
    """Time networks.

    Raises:
        PfpError: one of them could not be loaded or run.
    """
    if settings.runtime == "onnxruntime" and settings.provider not in onnxruntime.get_available_providers():
        found = ", ".join(onnxruntime.get_available_providers())
        raise InputError(f"--provider {settings.provider}: this onnxruntime has {found}", "install one that has it")
    rows: list[Benched] = []
    with resources(settings.threads) as scratch:
        paths = [Path(str(settings.model)), *settings.others]
        networks = [_opened(path, settings, scratch / str(number), console) for number, path in enumerate(paths)]
        for batch in settings.batches:
            with console.step("measure") as step:
                rows += _timed(networks, batch)
                step.summary = f"batch {batch}"
    about = machine(settings.threads, settings.provider)
    is_torch = settings.runtime == "torch"
    return Bench(
        pfp_version=__version__,
        machine={
            "processor": about["processor"],
            "cores": about["cores"],
            "runtime": settings.runtime,
            "version": torch.__version__ if is_torch else about["onnxruntime"],
            "provider": "CPU" if is_torch else settings.provider,
            "threads": about["threads"],
        },
        rows=rows,
    )


def _timed(networks: list[_Network], batch: int) -> list[Benched]:
    """Time all networks at a batch size; one that takes another only is timed at that."""
    generator = torch.Generator().manual_seed(0)
    batches = [network.batch or batch for network in networks]
    inputs = [torch.rand((n, *each.size), generator=generator) for n, each in zip(batches, networks, strict=True)]
    runs = [partial(each.run, x) for each, x in zip(networks, inputs, strict=True)]
    for network, run in zip(networks, runs, strict=True):
        try:
            run()
        except Exception as error:
            said = str(error).strip().partition("\n")[0]
            raise InputError(f"{network.name}: cannot be run on {tuple(inputs[0].shape)} ({said})") from error
    latencies = time_in_turn(runs)
    return [
        _row(network, n, found, None if i == 0 else latencies[0])
        for i, (network, n, found) in enumerate(zip(networks, batches, latencies, strict=True))
    ]


def _row(network: _Network, batch: int, found: Latency, first: Latency | None) -> Benched:
    return Benched(
        network.name,
        batch,
        list(network.size),
        round(found.median_ms, 4),
        round(found.iqr_ms, 4),
        found.runs,
        round(1000 * batch / found.median_ms, 1),
        None if first is None else speed_up_row(speed_up(first, found)),
    )


def _opened(path: Path, settings: BenchSettings, scratch: Path, console: Console) -> _Network:
    """Open a file or a run folder in the runtime that was asked for."""
    size, file = settings.input_size, path
    if path.is_dir():
        run = read(path)
        kind = "onnx" if settings.runtime == "onnxruntime" else "pt2"
        file = path / (run.artifacts[kind] or FILES[kind])
        size = size or tuple(run.model["input_size"])
    if file.suffix == ".onnx" and settings.runtime == "onnxruntime" and file.is_file():
        return _of_file(path.name, file, size, settings)
    if file.suffix == ".onnx" and settings.runtime == "torch":
        raise InputError(f"{path.name}: --runtime torch runs no ONNX file", "name the checkpoint, or a run folder")
    given = NetworkSettings(
        model=file,
        arch=settings.arch,
        arch_kwargs=settings.arch_kwargs,
        input_size=size,
        trust=settings.trust,
    )
    model = load_model(given, console)
    size = input_size(model, size)
    graph = trace_groups(model, size, given, console).labelled.graph
    if settings.runtime == "torch":
        return _Network(path.name, size, graph.fixed_batch, partial(_run_torch, graph.module))
    scratch.mkdir()
    with console.step("export"):
        draw = torch.Generator().manual_seed(0)
        writer = OnnxWriter(model, graph, lambda n: torch.rand((n, *size), generator=draw), scratch)
        return _of_file(path.name, writer.original, size, settings)


def _of_file(name: str, file: Path, size: tuple[int, ...] | None, settings: BenchSettings) -> _Network:
    """Open an ONNX file in onnxruntime."""
    try:
        opened = session(file, settings.threads, settings.provider)
    except Exception as error:
        raise InputError(f"{name}: onnxruntime cannot open it ({str(error).strip()[:120]})") from error
    if len(opened.get_inputs()) != 1:
        raise InputError(f"{name}: has {len(opened.get_inputs())} inputs, pfp bench times networks with one")
    shape: list[Any] = list(opened.get_inputs()[0].shape)
    if not all(isinstance(n, int) for n in shape[1:]):
        if size is None:
            raise sizeless(name)
    else:
        size = tuple(shape[1:])
    return _Network(name, size or (), shape[0] if isinstance(shape[0], int) else None, partial(_run_onnx, opened))


def _run_onnx(opened: onnxruntime.InferenceSession, x: Tensor) -> object:
    return run_onnx(opened, [x])


def _run_torch(module: torch.nn.Module, x: Tensor) -> object:
    with torch.no_grad():
        return module(x)

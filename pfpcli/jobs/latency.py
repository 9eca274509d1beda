"""`pfp latency`: the time of each layer of a network in onnxruntime, from the table and in the network itself."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

import numpy as np
import torch
from torch import Tensor

from pfpcli._version import __version__
from pfpcli.channels.groups import Groups
from pfpcli.graph.graph import owner
from pfpcli.jobs.recorded import model_row
from pfpcli.jobs.steps.budget import TIMED_IN, as_timed
from pfpcli.jobs.steps.export import OnnxWriter
from pfpcli.jobs.steps.open import input_size, load_model, resources, trace_groups
from pfpcli.latency.files import latency as time_files
from pfpcli.latency.layers import Layer, kind_of
from pfpcli.latency.pack import write_pack
from pfpcli.latency.prediction import TimedPredictor
from pfpcli.latency.stopwatch import NodeTimed, time_nodes
from pfpcli.latency.table import Table
from pfpcli.models.loaded_model import LoadedModel
from pfpcli.progress import Console
from pfpcli.records.folders import write_new
from pfpcli.records.latencies import Latencies, LayerTimed
from pfpcli.settings.latency import LatencySettings

#: The most channels that a block of a runtime holds.
_BLOCK = 16


def latency(settings: LatencySettings, console: Console) -> Latencies:
    """Time the layers of a model.

    Raises:
        PfpError: it could not be loaded, traced or run.
    """
    with resources(settings.threads) as scratch:
        model = load_model(settings, console)
        size = input_size(model, settings.input_size)
        groups = trace_groups(model, size, settings, console)
        conversion = TIMED_IN["int8" if settings.int8 else "float32"]
        table = Table.here(settings.threads, conversion)
        with console.step("time") as step:
            predictor = TimedPredictor(groups, table, lambda done, of: step.progress(done, of, "operators"))
            step.summary = f"{predictor.timed} operators timed"
        generator = torch.Generator().manual_seed(0)

        def samples(count: int) -> Tensor:
            return torch.rand((count, *size), generator=generator)

        with console.step("measure") as step:
            graph = groups.labelled.graph
            file = as_timed(OnnxWriter(model, graph, samples, scratch).original, conversion, "--int8")
            whole = time_files([file], [samples(graph.fixed_batch or 1)], settings.threads)[0]
            shape = (graph.fixed_batch or 1, *size)
            nodes = time_nodes(file.SerializeToString(), shape, settings.threads, table.machine["provider"])
            step.summary = f"{whole.median_ms:.3g} ms"
        found = _record(model, size, groups, predictor, nodes)
        found.measured_ms, found.quartiles_ms = round(whole.median_ms, 4), round(whole.iqr_ms, 4)
        if settings.pack is not None:
            found.pack = str(
                write_new(
                    settings.pack,
                    lambda pack: write_pack(pack, predictor.operators, file, shape, conversion),
                    "--pack",
                )
            )
    return found


def _record(
    model: LoadedModel,
    size: tuple[int, ...],
    groups: Groups,
    predictor: TimedPredictor,
    nodes: list[NodeTimed],
) -> Latencies:
    full = predictor.counts(groups.alive(np.zeros(0, np.int64)))
    dropped = [row[(len(row) + 1) // 2 :] for each in groups.prunable for row in each.rows]
    half = predictor.counts(groups.alive(np.concatenate([*dropped, np.zeros(0, np.int64)])))
    times, halved = predictor.times(full), predictor.times(half)
    measured = _matched(predictor.layers, nodes)
    return Latencies(
        pfp_version=__version__,
        model=model_row(model, size),
        machine=predictor.table.machine,
        operators=len({each.key for each in predictor.operators}),
        predicted_ms=round(sum(times), 4),
        measured_ms=0.0,
        quartiles_ms=0.0,
        unknown=sorted(set(predictor.unknown)),
        layers=[
            LayerTimed(
                _name(layer),
                "+".join(kind_of(node) for node in (layer.node, *layer.then)),
                (_channels(layer.reads[0]), _channels(layer.last)),
                round(time, 4),
                measured[i],
                round(less, 4),
            )
            for i, (layer, time, less) in enumerate(zip(predictor.layers, times, halved, strict=True))
        ],
    )


def _name(layer: Layer) -> str:
    """The name of the layer's weight without its last part, or of the call where it has none."""
    stored = layer.reads[len(layer.reads) - layer.stored :]
    return owner(stored[0]) if stored else layer.node.name


def _channels(node: object) -> int:
    shape = node.meta["val"].shape  # type: ignore[attr-defined]
    return int(shape[1]) if len(shape) > 1 else int(shape[-1])


def _matched(layers: list[Layer], nodes: list[NodeTimed]) -> list[float | None]:
    """Return the measured time of each layer with weights.

    Names of nodes change when a file is written and again when a runtime fuses them. So a layer is matched with the
    node whose tensors come closest to the shapes that it reads and makes; the first one of several.

    Args:
        layers: in the order of the graph.
        nodes: of the runtime, in the order of their runs.
    """
    left = list(nodes)
    found: list[float | None] = []
    for layer in layers:
        sizes = [node.meta["val"].shape[1:] for node in (layer.reads[0], layer.last)]
        filled = [sum(map(_filled, node[:2], sizes)) for node in left] if layer.stored else []
        least = min(filled, default=inf)
        found.append(None if least == inf else round(left.pop(filled.index(least)).ms, 4))
    return found


def _filled(seen: Sequence[int], shape: Sequence[int]) -> float:
    """Return how many channels the runtime has filled up a tensor of the graph by; inf if its tensor is another one.

    Both are without the batch. 8-bit convolutions put the channels last.
    """
    channels, *places = shape
    ways = (seen[:1], seen[1:]), (seen[-1:], seen[:-1])
    more = [sum(count) - channels for count, rest in ways if list(rest) == places]
    return min((each for each in more if 0 <= each < _BLOCK), default=inf)

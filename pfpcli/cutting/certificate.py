"""Certificate: what is known about the error of each layer, and what it is on images that took no part in scoring.

The error of a layer is |z_hat - z| / (z+ + z-): z what it puts out before its bias, z_hat without the channels that
were dropped and with those that were drawn re-weighted, z+ and z- what its positive and its negative terms sum up to.
It is of this layer alone, on what it reads in the original network, as it was cut and before any recovery. Errors of
layers compound on the way to the output, and no bound on that is claimed; how far the outputs moved is measured
(`quality`).

    bound      sum over channels j of |1 - scale_j| s_j, scale 0 where j was dropped: holds on the images scored, for
               any choice, because no term of channel j is more than s_j of its sum. At least 1, it says nothing
    epsilon    what m draws keep within with probability 1 - delta, before it is known what they are (`pfp`)
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.activations.walk import Walk
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.rules import Columns
from pfpcli.planning.plan import Plan
from pfpcli.records.parts import LayerError
from pfpcli.scoring import pfp
from pfpcli.scoring.scores import LayerScores, Scores


def certificate(
    planned: Plan, readers: list[Reader], scores: Scores, *, reduce: str, delta: float, measured: dict[str, float]
) -> list[LayerError]:
    """One row for every layer with weights that reads channels which were dropped or re-weighted.

    Args:
        planned: what stays.
        readers: the layers.
        scores: what scoring came to; without sensitivities there are no bounds.
        reduce: how the sensitivities were taken: those of single weights ("max") bound nothing.
        delta: probability with which a bound on draws may fail.
        measured: layer -> error, as `measure` returns it.
    """
    rows: dict[str, LayerError] = {}
    touched = _touched(planned, readers)
    for reader, layer in zip(readers, scores.layers or [None] * len(readers), strict=True):
        if reader not in touched:
            continue
        labels = reader.contraction.labels.numpy()
        row = LayerError(reader.name, len(labels), int(planned.alive[labels].sum()))
        row.measured = measured.get(reader.name)
        if layer is not None:
            row.total = layer.total
            row.bound = _bound(planned, layer) if reduce == "sum" else None
            row.draws, row.epsilon = _draws(planned, reader, layer, scores, reduce, delta)
        before = rows.setdefault(reader.name, row)
        if (row.bound or 0.0) > (before.bound or 0.0):  # a layer that is used again has the larger of its errors
            rows[reader.name] = row
    return list(rows.values())


def _touched(planned: Plan, readers: list[Reader]) -> list[Reader]:
    """The layers with weights that read other channels than before, or with other weights."""
    return [reader for reader in readers if reader.has_weights and (channel_factors(planned, reader) != 1).any()]


def channel_factors(planned: Plan, reader: Reader) -> NDArray[np.float64]:
    """float64[C_in]: what a layer multiplies each of its channels with, 0 where it is dropped."""
    labels = reader.contraction.labels.numpy()
    return np.where(planned.alive[labels], planned.scale[labels], 0.0)


def _bound(planned: Plan, layer: LayerScores) -> float:
    """Sum of what was dropped or re-weighted; what goes with a head counts in its head."""
    owned = planned.groups.owned
    inside = {unit for part in owned if not planned.alive[part] for unit in owned[part].tolist()}
    moved = np.where(planned.alive[layer.units], np.abs(1 - planned.scale[layer.units]), 1.0)
    counts = [unit not in inside and (unit not in owned or not planned.alive[unit]) for unit in layer.units.tolist()]
    return float((moved * layer.shares)[counts].sum())


def _draws(
    planned: Plan, reader: Reader, layer: LayerScores, scores: Scores, reduce: str, delta: float
) -> tuple[int | None, float | None]:
    """(m, epsilon): the draws that were made, or those the shared error stands for."""
    if not planned.is_sampled:
        epsilon = planned.epsilon if planned.epsilon is not None else _epsilon(planned, reader, scores, delta)
        if epsilon is None:
            return None, None
        return int(min(2**62, pfp.sample_count(epsilon, layer.total, layer.log(delta)))), epsilon
    read = set(reader.units.tolist())
    events = 4 * max(1, scores.samples) * reader.neurons  # two halves of inputs, two signs of weights
    pairs = zip(planned.groups.groups, planned.draws, strict=True)
    drawn = [draws for group, draws in pairs if draws is not None and not read.isdisjoint(group.units.tolist())]
    if not drawn:
        return None, None
    epsilons = [pfp.error_of_draws(draws.count, draws.total, events, delta) for draws in drawn]
    return min(draws.count for draws in drawn), max(epsilons) if reduce == "sum" else None


def _epsilon(planned: Plan, reader: Reader, scores: Scores, delta: float) -> float | None:
    """The error that as many channels stand for as are left of what a layer reads, the largest of its groups."""
    read, log, found = set(reader.units.tolist()), scores.log(delta), []
    for group, kept in zip(planned.groups.groups, planned.kept, strict=True):
        if not group.frozen and kept < group.positions and not read.isdisjoint(group.units.tolist()):
            steps = scores.unit[group.rows].max(0)
            found.append(pfp.error_of_count(steps, kept, float(log[group.units].max())))
    return max(found, default=None)


def measure(
    planned: Plan, readers: list[Reader], batches: Iterable[Tensor], device: torch.device | str = "cpu"
) -> tuple[dict[str, float], int]:
    """The largest error of each layer on some images.

    Args:
        planned: what stays.
        readers: the layers.
        batches: float[N, ...] each.
        device: where to compute.

    Returns:
        (layer -> error, images).
    """
    touched = _touched(planned, readers)
    found = dict.fromkeys((reader.name for reader in touched), 0.0)

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        for columns in reader.pieces(x, weight):
            error = float(measured_error(columns, _kept(planned, reader, columns)).max())
            found[reader.name] = max(found[reader.name], error)

    graph = planned.groups.labelled.graph
    walk = Walk(graph.module, touched, look)
    graph.to(device)
    images = 0
    with torch.no_grad():
        for batch in batches:
            if processes.is_mine(batch):
                walk.run(batch.to(device))
            images += len(batch)
    graph.to("cpu")
    return {name: processes.largest(error) for name, error in found.items()}, images


def measured_error(columns: Columns, weight: Tensor) -> Tensor:
    """Largest error of each output relative to |W| |a|, over inputs and patches: float[G, O]; 0 where that is 0.

    Args:
        columns: the layer as it was, on the inputs to measure it on.
        weight: float[G, O, J, R], its new weights.
    """
    x, before = columns.x.flatten(2, 3).permute(1, 2, 0, 3).flatten(2), columns.weight.flatten(2)
    error = ((weight.to(before).flatten(2) - before) @ x).abs()
    return (error * pfp.inverse(before.abs() @ x.abs())).amax(2)


def _kept(planned: Plan, reader: Reader, columns: Columns) -> Tensor:
    """The weights of a layer, float[G, O, J, R], as its channels are left."""
    factor = torch.from_numpy(channel_factors(planned, reader)).to(columns.weight)
    return columns.weight * factor.view(columns.weight.shape[0], 1, -1, 1)

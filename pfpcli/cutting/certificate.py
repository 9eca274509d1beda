"""Certificate: bounds and measurements of the error of each layer.

The error of a layer is |z_hat - z| / (z+ + z-), where z is the result of the layer before its bias, z_hat the result
without dropped channels and with re-weighted ones, and z+ and z- are the sums of the positive and the negative terms of
z. It is the error of this layer alone, on the layer's inputs in the original network, after the cut and before any
recovery. The errors of layers compound on the way to the output. No bound on the output is claimed; `quality` measures
the change of the outputs.

    bound      the sum over channels j of |1 - scale_j| s_j, with scale 0 for a dropped channel. It holds on the scoring
               images for every choice of channels, because no term of channel j exceeds s_j of its sum. A bound of 1 or
               more says nothing
    epsilon    the error that m draws stay within with probability 1 - delta, before they are made (`pfp`)
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
    """One row for every layer with weights that reads dropped or re-weighted channels.

    Args:
        planned: the plan.
        readers: the reading layers.
        scores: the scores; without sensitivities there are no bounds.
        reduce: how the sensitivities were reduced. Sensitivities of single weights ("max") bound nothing.
        delta: the probability with which a bound on draws may fail.
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
        if (row.bound or 0.0) > (before.bound or 0.0):  # a layer with several calls gets the largest bound of its calls
            rows[reader.name] = row
    return list(rows.values())


def _touched(planned: Plan, readers: list[Reader]) -> list[Reader]:
    """The layers with weights that read dropped or re-weighted channels."""
    return [reader for reader in readers if reader.has_weights and (channel_factors(planned, reader) != 1).any()]


def channel_factors(planned: Plan, reader: Reader) -> NDArray[np.float64]:
    """float64[C_in]: the factor of each channel that a layer reads, 0 for a dropped channel."""
    labels = reader.contraction.labels.numpy()
    return np.where(planned.alive[labels], planned.scale[labels], 0.0)


def _bound(planned: Plan, layer: LayerScores) -> float:
    """The bound of a layer. The channels of a dropped head count once, as the head."""
    owned = planned.groups.owned
    inside = {unit for part in owned if not planned.alive[part] for unit in owned[part].tolist()}
    moved = np.where(planned.alive[layer.units], np.abs(1 - planned.scale[layer.units]), 1.0)
    counts = [unit not in inside and (unit not in owned or not planned.alive[unit]) for unit in layer.units.tolist()]
    return float((moved * layer.shares)[counts].sum())


def _draws(
    planned: Plan, reader: Reader, layer: LayerScores, scores: Scores, reduce: str, delta: float
) -> tuple[int | None, float | None]:
    """(m, epsilon): the number of draws and their error. Without draws, the shared error and the m that it implies."""
    if not planned.is_sampled:
        epsilon = planned.epsilon if planned.epsilon is not None else _epsilon(planned, reader, scores, delta)
        if epsilon is None:
            return None, None
        return int(min(2**62, pfp.sample_count(epsilon, layer.total, layer.log(delta)))), epsilon
    read = set(reader.units.tolist())
    events = 4 * max(1, scores.samples) * reader.neurons  # positive and negative inputs, positive and negative weights
    pairs = zip(planned.groups.groups, planned.draws, strict=True)
    drawn = [draws for group, draws in pairs if draws is not None and not read.isdisjoint(group.units.tolist())]
    if not drawn:
        return None, None
    epsilons = [pfp.error_of_draws(draws.count, draws.total, events, delta) for draws in drawn]
    return min(draws.count for draws in drawn), max(epsilons) if reduce == "sum" else None


def _epsilon(planned: Plan, reader: Reader, scores: Scores, delta: float) -> float | None:
    """The error that the numbers of kept channels imply for a layer: the largest over the groups that it reads."""
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
        planned: the plan.
        readers: the reading layers.
        batches: float[N, ...] each.
        device: the device to compute on.

    Returns:
        (layer -> error, number of images).
    """
    touched = _touched(planned, readers)
    found = dict.fromkeys((reader.name for reader in touched), 0.0)

    def look(reader: Reader, x: Tensor, weight: Tensor) -> None:
        for columns in reader.pieces(x, weight):
            error = float(measured_error(columns, _factored(planned, reader, columns)).max())
            found[reader.name] = max(found[reader.name], error)

    graph, images = planned.groups.labelled.graph, 0
    walk = Walk(graph.module, touched, look)
    with graph.on(device), torch.no_grad():
        for batch in batches:
            if processes.is_mine(batch):
                walk.run(batch.to(device))
            images += len(batch)
    return {name: processes.largest(error) for name, error in found.items()}, images


def measured_error(columns: Columns, weight: Tensor) -> Tensor:
    """The largest error of each output over inputs and patches, relative to |W| |a|: float[G, O].

    The error is 0 where |W| |a| is 0.

    Args:
        columns: the inputs and the old weights of the layer.
        weight: float[G, O, J, R], the new weights of the layer.
    """
    x, before = columns.x.flatten(2, 3).permute(1, 2, 0, 3).flatten(2), columns.weight.flatten(2)
    error = ((weight.to(before).flatten(2) - before) @ x).abs()
    return (error * pfp.inverse(before.abs() @ x.abs())).amax(2)


def _factored(planned: Plan, reader: Reader, columns: Columns) -> Tensor:
    """The weights of a layer times the factors of its channels, float[G, O, J, R]."""
    factor = torch.from_numpy(channel_factors(planned, reader)).to(columns.weight)
    return columns.weight * factor.view(columns.weight.shape[0], 1, -1, 1)

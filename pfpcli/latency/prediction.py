"""Prediction: the time of a plan, from a table."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from pfpcli.channels.cost import Costs, Predictor
from pfpcli.channels.groups import Groups
from pfpcli.errors import InputError
from pfpcli.latency.layers import Layer, layers_of
from pfpcli.latency.operators import Operator
from pfpcli.latency.table import Table

#: Layers are timed at these fractions of a width, rounded up to multiples that fill the runtime's blocks.
_FRACTIONS = (1 / 8, 1 / 4, 3 / 8, 1 / 2, 3 / 4)


@dataclass(frozen=True)
class _Grid:
    """The widths at which a layer is timed.

    Attributes:
        layer: the layer.
        vectors: indices of the vectors of units that it reads, and that a cut can narrow.
        widths: for each axis of the grid, int64[w], ascending. A layer with more than two vectors has one axis, along
            which all of them are narrowed together.
        operators: the operators of the grid, in C order.
    """

    layer: Layer
    vectors: tuple[int, ...]
    widths: tuple[NDArray[np.int64], ...]
    operators: tuple[Operator, ...]


class TimedPredictor(Predictor):
    """Predicts the milliseconds of plans beside their other costs.

    Args:
        groups: the groups of the graph.
        table: the times of operators; it gets those that are missing.
        progress: receives the number of operators that are timed, and of all.

    Attributes:
        layers: the layers that take time.
        unknown: names of the ops that are not timed.

    Raises:
        InputError: the table is of another machine and lacks operators, or no operator can be timed.
    """

    def __init__(
        self, groups: Groups, table: Table, progress: Callable[[int, int], None] = lambda done, of: None
    ) -> None:
        super().__init__(groups)
        self._grids, self.unknown = grids_of(groups, self)
        self.table = table
        self.timed = table.complete(self.operators, progress)
        if not any(table.operators[each.key] for each in self.operators):
            raise InputError(
                f"onnxruntime runs none of the {len(self._grids)} layers in {table.conversion.precision}",
                "give another budget, e.g. `--keep-of macs --keep 0.5`",
            )
        self._times = [
            np.asarray([table.operators[each.key] for each in grid.operators]).reshape(
                [len(axis) for axis in grid.widths]
            )
            for grid in self._grids
        ]

    @property
    def operators(self) -> list[Operator]:
        """What is timed: the layers at the widths of their grids."""
        return [each for grid in self._grids for each in grid.operators]

    @property
    def layers(self) -> list[Layer]:
        """The layers that take time."""
        return [grid.layer for grid in self._grids]

    def at(self, counts: Sequence[int]) -> Costs:
        """Return the costs, with the milliseconds."""
        return replace(super().at(counts), ms=float(sum(self.times(counts))))

    def times(self, counts: Sequence[int]) -> list[float]:
        """Return the milliseconds of each layer; counts: units of each vector that are kept."""
        return [self._time(grid, times, counts) for grid, times in zip(self._grids, self._times, strict=True)]

    def _time(self, grid: _Grid, times: NDArray[np.float64], counts: Sequence[int]) -> float:
        at: list[float] = [counts[vector] for vector in grid.vectors]
        if len(grid.widths) < len(at):
            full = [len(self.vectors[vector].T) for vector in grid.vectors]
            at = [float(np.mean(np.asarray(at) / full)) * full[0]]
        for width, axis in zip(at, grid.widths, strict=True):
            times = _interpolated(times, axis, width)
        return float(times)


def _interpolated(values: NDArray[np.float64], axis: NDArray[np.int64], width: float) -> NDArray[np.float64]:
    """Interpolate along the first axis; values: float64[w, ...]; axis: int64[w]."""
    if len(axis) == 1:
        return np.asarray(values[0])
    i = int(np.clip(np.searchsorted(axis, width) - 1, 0, len(axis) - 2))
    share = min(1.0, max(0.0, (width - axis[i]) / (axis[i + 1] - axis[i])))
    return (1 - share) * values[i] + share * values[i + 1]  # type: ignore[no-any-return]


def grids_of(groups: Groups, predictor: Predictor) -> tuple[list[_Grid], list[str]]:
    """Return the grid of each layer, and the ops that cannot be timed."""
    graph = groups.labelled.graph
    layers, unknown = layers_of(graph)
    full = predictor.counts(groups.alive(np.zeros(0, np.int64)))
    dropped = [row[1:] for each in groups.prunable for row in each.rows]
    least = predictor.counts(groups.alive(np.concatenate([*dropped, np.zeros(0, np.int64)])))

    def batch(shape: tuple[int, ...]) -> tuple[int, ...]:
        return (max(1, shape[0] // graph.batch), *shape[1:]) if graph.dynamic and shape else shape

    grids = []
    for layer in layers:
        read = dict.fromkeys(vector for node in layer.reads for _, vector in predictor.dims.get(node, ()))
        vectors = tuple(vector for vector in read if least[vector] < full[vector])
        axes = [widths_of(full[vector]) for vector in (vectors if len(vectors) < 3 else vectors[:1])]
        operators = []
        for point in itertools.product(*(axis.tolist() for axis in axes)):
            counts = _counts_at(point, vectors, full, least)
            operators.append(layer.at(predictor.sizes(counts), batch))
        grids.append(_Grid(layer, vectors, tuple(axes), tuple(operators)))
    return grids, [str(node.target) for node in unknown]


def _counts_at(point: tuple[int, ...], vectors: Sequence[int], full: Sequence[int], least: Sequence[int]) -> list[int]:
    """Return the units of every vector at a point of a grid; what the layer makes is narrowed like what it reads."""
    share = float(np.mean([width / full[vector] for width, vector in zip(point, vectors, strict=False)] or [1.0]))
    counts = [max(few, round(share * many)) if few < many else many for few, many in zip(least, full, strict=True)]
    if len(point) == len(vectors):
        for width, vector in zip(point, vectors, strict=True):
            counts[vector] = width
    return counts


def widths_of(full: int) -> NDArray[np.int64]:
    """Return the widths at which a layer of a full width is timed: int64[w], ascending.

    Between them the time is taken as linear. A width that is no multiple of the runtime's block costs as much as the
    next one that is, or more, so only multiples are timed.
    """
    step = 4 if full <= 16 else 8 if full <= 64 else 16
    rounded = {min(full, step * math.ceil(full * share / step)) for share in _FRACTIONS}
    return np.asarray(sorted(rounded | {full}), np.int64)

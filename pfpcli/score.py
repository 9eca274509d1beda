"""Score: one pass over the calibration images, and every unit has a number that says how much it matters.

A product of activations (queries and keys of an attention) is read as a layer whose weights are the other operand, as
they are for each sample; the guarantee for layers with weights of their own does not cover it.

The pass streams: each layer that reads prunable channels is looked at while its input is there, and only running maxima
stay. The order of the images, the batch size and the device do not matter beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.fx.node import Node

from pfpcli import ops, pfp
from pfpcli.flow import Contraction
from pfpcli.groups import Group, Groups
from pfpcli.ops import Columns

#: Numbers of unfolded input that a layer is scored on at a time.
_CHUNK = 1 << 22


@dataclass
class Reader:
    """A layer that reads prunable channels, and what has been seen of it.

    Attributes:
        contraction: where it is in the graph.
        weight: the operand its channels are multiplied with: weights, or other activations.
        units: int64[C_in], the unit of each channel it reads, 0 where that cannot go.
        heads: int64[C_in], the unit of the head a channel belongs to, 0 where that cannot go as a whole.
        patches: positions it is applied at, P.
        kernel: positions of its kernel.
        neurons: numbers it puts out for one input.
        largest: unit -> sensitivity so far, float[labels].
    """

    contraction: Contraction
    weight: Node
    units: NDArray[np.int64]
    heads: NDArray[np.int64]
    patches: int
    kernel: int
    neurons: int
    largest: Tensor = field(repr=False)


@dataclass(frozen=True)
class Scores:
    """What scoring came to.

    Attributes:
        unit: float64[labels], the score of each unit; nan where nothing was measured.
        log: float64[labels], the largest `pfp.log_term` of the layers that read a unit.
        samples: images scored.
    """

    unit: NDArray[np.float64]
    log: NDArray[np.float64]
    samples: int

    def of(self, group: Group) -> NDArray[np.float64]:
        """float64[n], the scores of a group's units."""
        return self.unit[group.units]


def readers(groups: Groups) -> list[Reader]:
    """The layers with weights, and the products of activations, that read channels of a prunable group."""
    prunable = np.zeros(len(groups.root), dtype=bool)
    for group in groups.prunable:
        prunable[group.units] = True
    head = np.zeros(len(groups.root), dtype=np.int64)
    for part, owned in groups.owned.items():
        head[owned] = part
    found = []
    for contraction in groups.labelled.contractions:
        units = groups.root[contraction.labels.numpy()]
        units = np.where(prunable[units], units, 0)
        rule = ops.find(contraction.node.target)
        weight = contraction.weight or (contraction.factor if _is_stack(groups, contraction) else None)
        if weight is None or rule is None or rule.columns is None or not units.any():
            continue
        x, w = contraction.x.meta["val"][:1], weight.meta["val"]
        with x.fake_mode:
            columns = rule.columns(contraction.node, x, w if contraction.weight else w[:1])
        kernel, patches = columns.x.shape[3:]
        neurons = columns.weight.shape[:2].numel() * patches
        largest = torch.zeros(len(groups.root))
        # in a product of activations a head is all there is: its share says nothing
        heads = head[units] if contraction.weight is not None else np.zeros_like(units)
        found.append(Reader(contraction, weight, units, heads, patches, kernel, neurons, largest))
    return found


def _is_stack(groups: Groups, contraction: Contraction) -> bool:
    """Whether a product of activations is one of each sample, its parts, if any, the last of the stack."""
    x, factor = contraction.x, contraction.factor
    if factor is None or x.meta["val"].dim() < 3 or x.meta["val"].shape[:-2] != factor.meta["val"].shape[:-2]:
        return False
    rank = x.meta["val"].dim()
    if contraction.dim != rank - 1:
        return False
    axes = groups.labelled.axes[x]
    parts = axes.ragged[rank - 1].parts if rank - 1 in axes.ragged else ()
    return parts == tuple(range(rank - 2 - len(parts), rank - 2))


def set_size(found: list[Reader]) -> int:
    """How many calibration images the guarantee asks for."""
    return pfp.set_size([reader.neurons for reader in found])


def score(
    groups: Groups,
    found: list[Reader],
    batches: Iterable[Tensor],
    *,
    reduce: str = "sum",
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] = lambda done: None,
) -> Scores:
    """Run the calibration images through the network and score every unit that is read by a layer with weights.

    Args:
        groups: the graph's units.
        found: the layers to look at, as `readers` returns them.
        batches: float[N, ...] each.
        reduce: see `pfp.sensitivity`.
        device: where to compute.
        progress: told the number of images done.
    """
    graph = groups.labelled.graph
    graph.to(device)
    for reader in found:
        reader.largest = reader.largest.to(device)
    walk = _Walk(graph.module, found, reduce)
    done = 0
    for batch in batches:
        with torch.no_grad():
            walk.run(batch.to(device))
        done += len(batch)
        progress(done)
    graph.to("cpu")
    unit = np.full(len(groups.root), np.nan)
    log = np.zeros(len(groups.root))
    for reader in found:
        seen = np.unique([*reader.units[reader.units > 0], *reader.heads[reader.heads > 0]])
        unit[seen] = np.fmax(unit[seen], reader.largest[seen].double().cpu().numpy())
        log[seen] = np.maximum(log[seen], pfp.log_term(reader.patches, reader.kernel))
    return Scores(unit, log, done)


class _Walk(fx.Interpreter):
    """Runs the network and looks at the inputs of its readers on the way."""

    def __init__(self, module: fx.GraphModule, found: list[Reader], reduce: str) -> None:
        super().__init__(module)
        self._readers = {reader.contraction.node: reader for reader in found}
        self._reduce = reduce

    def run_node(self, n: Node) -> object:
        """Look, then compute."""
        reader = self._readers.get(n)
        if reader is not None:
            _look(reader, self.env[reader.contraction.x], self.env[reader.weight], self._reduce)
        return super().run_node(n)


def _look(reader: Reader, x: Tensor, weight: Tensor, reduce: str) -> None:
    """Update a reader's sensitivities with what it reads now, a few images at a time."""
    rule = ops.find(reader.contraction.node.target)
    assert rule is not None
    assert rule.columns is not None
    step = max(1, _CHUNK // max(1, x[0].numel() * reader.kernel))
    per_sample = weight.split(step) if reader.contraction.factor is not None else repeat(weight)
    for part, weights in zip(x.split(step), per_sample, strict=False):
        columns = rule.columns(reader.contraction.node, part.float(), weights.float())
        groups, channels = columns.x.shape[1:3]
        units = torch.from_numpy(reader.units).view(-1, channels)
        units = units.repeat(groups // len(units), 1)
        _raise(reader, columns, units, reduce)
        if reader.heads.any():
            _raise(reader, columns, torch.from_numpy(reader.heads).view(-1, channels), reduce)
    reader.largest[0] = 0


def _raise(reader: Reader, columns: Columns, units: Tensor, reduce: str) -> None:
    """The largest share of each unit so far; units: int64[G, J]."""
    if _is_distinct(units):
        found = [(units.flatten(), pfp.sensitivity(columns, reduce).flatten())]
    else:
        found = []
        for group in range(len(units)):
            of_group = Columns(columns.x[:, group : group + 1], columns.weight[group : group + 1])
            members, gathered = by_unit(of_group, units[group])
            found.append((members, pfp.sensitivity(gathered, reduce)[0]))
    for members, shares in found:
        reader.largest.scatter_reduce_(0, members.to(shares.device), shares, "amax")


def _is_distinct(units: Tensor) -> bool:
    """Whether no unit is twice in a row; what cannot go does not count."""
    ordered = units.sort(1).values
    return not bool(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] > 0)).any())


def by_unit(columns: Columns, units: Tensor) -> tuple[Tensor, Columns]:
    """Gather the columns that go together: a unit that spans several (a flattened map) has one share, their sum.

    Args:
        columns: one group; x float[N, 1, J, R, P].
        units: int64[J].

    Returns:
        (int64[U] the units, columns with U channels of M * R positions, the ragged ones filled up with zeros).
    """
    distinct, index, counts = torch.unique(units, return_inverse=True, return_counts=True)
    if len(distinct) == len(units) and bool((index == torch.arange(len(index))).all()):
        return units, columns
    most = int(counts.max())
    order = torch.argsort(index, stable=True)
    slot = torch.arange(len(order)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    place = torch.full((len(distinct), most), -1)
    place[index[order], slot] = order
    place = place.flatten().to(columns.x.device)
    return distinct, Columns(
        _take(columns.x, place).unflatten(2, (-1, most)).flatten(3, 4),
        _take(columns.weight, place).unflatten(2, (-1, most)).flatten(3, 4),
    )


def _take(tensor: Tensor, place: Tensor) -> Tensor:
    """Columns at these places of dimension 2, zeros where the place is -1."""
    taken = tensor.index_select(2, place.clamp(min=0))
    sizes = [1] * tensor.dim()
    sizes[2] = -1
    return taken * (place >= 0).view(sizes)

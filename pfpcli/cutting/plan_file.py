"""The plan file: a plan as plan.json has it, enough to cut the original checkpoint again.

A `PlanFile` says for every tensor which indices are kept. It is made of a plan, written and read as JSON, and turned
into a plan again for the network that it was made for. Two plan files of which the second one cuts the network that the
first one leaves are joined by `then`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from torch.fx.node import Node

from pfpcli.amounts import COUNTED
from pfpcli.channels.cost import Predictor
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.certificate import channel_factors
from pfpcli.errors import InputError
from pfpcli.graph.graph import is_tensor
from pfpcli.graph.invariant import InvariantError
from pfpcli.limits import read_document
from pfpcli.planning.plan import Budget, Plan, everything

#: 1: `keep` is the fraction that was reached. 2: `asked` is the one that was asked for, `achieved` the one reached.
SCHEMA_VERSION = 2

#: The largest factor of a channel that was drawn: 1 over the probability of drawing it.
_LARGEST_FACTOR = 1e9

_ANOTHER = "name the model the plan was made of, or a fine-tuned checkpoint of it"


@dataclass(frozen=True)
class KeptChannels:
    """How many channels of a group are kept."""

    name: str
    size: int
    kept: int


@dataclass(frozen=True)
class PlanFile:
    """What is kept of every tensor.

    Attributes:
        asked: fraction to keep that was asked for.
        achieved: fraction that the plan keeps.
        of: what the fractions measure, "params" or "macs".
        epsilon: the error that all layers share, None where they share none.
        groups: how many channels of each group are kept.
        tensors: name of a tensor -> dimension -> indices kept along it; dimensions that are kept whole are absent.
        scale: name of a layer -> factor of its weights for each channel it read, where channels were drawn; 0 for
            dropped ones.
        shapes: name of a tensor that is cut -> its shape before the cut; empty in files of older versions.
    """

    asked: float
    achieved: float
    of: str
    epsilon: float | None
    groups: list[KeptChannels]
    tensors: dict[str, dict[str, list[Any]]]
    scale: dict[str, list[float]]
    schema_version: int = SCHEMA_VERSION
    shapes: dict[str, list[int]] = field(default_factory=dict)

    @classmethod
    def of_plan(cls, plan: Plan, slicing: Slicing, readers: Iterable[Reader]) -> PlanFile:
        """Describe a plan.

        Args:
            plan: the plan.
            slicing: what it leaves of every tensor.
            readers: the layers that read channels.
        """
        nodes = [node for node in slicing.labelled.graph.nodes if node.op == "get_attr" and is_tensor(node)]
        cut = [node for node in nodes if slicing.is_cut(node)]
        return cls(
            asked=plan.budget.keep,
            achieved=plan.achieved,
            of=plan.budget.of,
            epsilon=plan.epsilon,
            groups=[
                KeptChannels(group.name, group.size, kept * group.width)
                for group, kept in zip(plan.groups.groups, plan.kept, strict=True)
            ],
            tensors={str(node.target): _kept_indices(slicing, node) for node in cut},
            shapes={str(node.target): list(node.meta["val"].shape) for node in cut},
            scale={
                reader.name: channel_factors(plan, reader).tolist()
                for reader in readers
                if reader.has_weights and plan.is_sampled
            },
        )

    @classmethod
    def read(cls, path: Path) -> PlanFile:
        """Read a file.

        Raises:
            InputError: it is missing, of another schema version, or no plan.
        """
        try:
            content = msgspec.json.decode(read_document(path))
            version = content["schema_version"]
            if version == 1:
                content |= {"schema_version": SCHEMA_VERSION, "asked": content["keep"], "achieved": content.pop("keep")}
            elif version != SCHEMA_VERSION:
                raise InputError(
                    f"{path.name}: schema version {version}, this pfp reads versions 1 and {SCHEMA_VERSION}",
                    "use the pfp that wrote it, or compress again",
                )
            return msgspec.convert(content, cls)._checked()
        except FileNotFoundError:
            raise InputError(f"{path.name}: no such file in {path.parent.name}", "name a run folder") from None
        except (msgspec.MsgspecError, TypeError, KeyError, ValueError, RecursionError) as error:
            raise InputError(f"{path.name}: not a plan ({error})", "name a run that `pfp compress` wrote") from error

    def _checked(self) -> PlanFile:
        """Return this plan if its numbers can be those of a plan.

        Raises:
            ValueError: a number cannot be; the message names the field.
        """
        if self.of not in COUNTED:
            raise ValueError(f"of: expected one of {', '.join(COUNTED)}")
        if not (0 < self.asked <= 1 and self.achieved > 0):
            raise ValueError("asked, achieved: expected fractions above 0")
        if self.epsilon is not None and self.epsilon <= 0:
            raise ValueError("epsilon: expected a number above 0")
        for layer, factors in self.scale.items():
            if not all(0 <= factor <= _LARGEST_FACTOR for factor in factors):
                raise ValueError(f"scale.{layer}: expected factors from 0 to {_LARGEST_FACTOR:g}")
        return self

    def json(self) -> str:
        """The plan as text."""
        return msgspec.json.encode(asdict(self)).decode() + "\n"

    def then(self, later: PlanFile) -> PlanFile:
        """Join this plan with one for the network that it leaves: a plan for the original network.

        Tensors that the original network does not have (positions that a cut added) are not in the result.
        """
        tensors = {name: dict(dims) for name, dims in self.tensors.items()}
        for name, dims in later.tensors.items():
            mine = tensors.setdefault(name, {})
            for dim, kept in dims.items():
                mine[dim] = _kept_of_kept(mine[dim], kept) if dim in mine else kept
        scale = {name: list(factors) for name, factors in self.scale.items()}
        for name, factors in later.scale.items():
            if name in scale:  # `later` has no factors of channels that this plan drops: they stay 0
                left = iter(factors)
                scale[name] = [factor and factor * next(left) for factor in scale[name]]
            else:
                scale[name] = factors
        return replace(later, tensors=tensors, scale=scale, shapes=later.shapes | self.shapes)

    def only(self, names: Iterable[str]) -> PlanFile:
        """The plan without tensors that have none of these names."""
        known = set(names)
        tensors = {name: dims for name, dims in self.tensors.items() if name in known}
        return replace(
            self, tensors=tensors, shapes={name: self.shapes[name] for name in tensors if name in self.shapes}
        )

    def plan(self, groups: Groups, readers: Iterable[Reader], name: str = "plan.json") -> Plan:
        """The plan for the network that the file was made for.

        Args:
            groups: the groups of the network.
            readers: the layers that read channels.
            name: of the file, for messages.

        Raises:
            InputError: the file is of another network; the message names a tensor or a group.
        """
        alive = self._alive(groups, name)
        self._check_kept(groups, alive, name)
        scale = np.ones(len(alive))
        for reader in readers:
            factors = np.asarray(self.scale.get(reader.name, []))
            labels = reader.contraction.labels.numpy()
            if len(factors) == len(labels):
                scale[labels[alive[labels]]] = factors[alive[labels]]
        predictor = Predictor(groups)
        whole = everything(groups, predictor, Budget(self.asked, self.of))
        # a part that is dropped as a whole keeps nothing; the other parts keep as many units each
        kept = tuple(int(alive[group.rows].sum(1).max()) for group in groups.groups)
        before, after = whole.before, predictor.predict(alive)
        if self.of == "latency":  # nothing is timed here: the file knows the ratio alone
            before, after = replace(before, ms=1.0), replace(after, ms=self.achieved)
        made = replace(whole, alive=alive, kept=kept, before=before, after=after, epsilon=self.epsilon)
        try:
            made.check(predictor)  # without the scale: a file does not say what was drawn
        except InvariantError as error:
            raise InputError(f"{name}: does not fit this model and its --freeze ({error})", _ANOTHER) from error
        return replace(made, scale=scale)

    def _check_kept(self, groups: Groups, alive: NDArray[np.bool_], name: str) -> None:
        """Refuse indices that contradict each other: a channel that one tensor drops and another one keeps."""
        slicing, nodes = Slicing(groups.labelled, alive), _tensors(groups)
        for tensor, dims in self.tensors.items():
            left = _kept_indices(slicing, nodes[tensor])
            for dim, kept in dims.items():
                if kept != left.get(dim, list(range(nodes[tensor].meta["val"].shape[int(dim)]))):
                    raise InputError(
                        f"{name}: keeps indices along dimension {dim} of {tensor} that do not fit those of the other "
                        "tensors",
                        _ANOTHER,
                    )

    def _alive(self, groups: Groups, name: str) -> NDArray[np.bool_]:
        """bool[labels]: the kept labels."""
        nodes = _tensors(groups)
        named = self.tensors.keys() | self.shapes.keys()
        if not named <= nodes.keys():
            missing = min(named - nodes.keys())
            raise InputError(f"{name}: names {missing}, which this model does not have", _ANOTHER)
        for tensor, shape in self.shapes.items():
            found = list(nodes[tensor].meta["val"].shape)
            if found != shape:
                texts = ("×".join(map(str, each)) for each in (found, shape))
                raise InputError(
                    f"{name}: {tensor}: found {next(texts)} in this model, expected {next(texts)}", _ANOTHER
                )
        dropped = [np.zeros(0, np.int64)]
        known = np.concatenate([each.units for each in groups.groups])
        for tensor, dims in self.tensors.items():
            axes = groups.labelled.axes[nodes[tensor]]
            for dim, kept in dims.items():
                try:
                    if int(dim) in axes.ragged:
                        rows = axes.ragged[int(dim)].rows.numpy()
                        gone = np.concatenate([np.delete(row, left) for row, left in zip(rows, kept, strict=True)])
                    else:
                        gone = np.delete(axes.labels[int(dim)].numpy(), kept)
                    if not np.isin(groups.root[gone], known).all():
                        raise KeyError(dim)  # along it lie no channels, but positions of a kernel
                    dropped.append(gone)
                except (KeyError, IndexError, ValueError, TypeError, OverflowError):
                    raise InputError(
                        f"{name}: keeps indices along dimension {dim} of {tensor} that this model does not have",
                        _ANOTHER,
                    ) from None
        units = np.unique(groups.root[np.concatenate(dropped)])
        # a part is in no tensor of its own: it is dropped where nothing of what it owns is kept
        parts = [part for part, owned in groups.owned.items() if np.isin(owned, units).all()]
        return groups.alive(np.concatenate([units, np.asarray(parts, np.int64)]))


def _tensors(groups: Groups) -> dict[str, Node]:
    """Name of a tensor -> its node."""
    return {str(n.target): n for n in groups.labelled.graph.nodes if n.op == "get_attr" and is_tensor(n)}


def _kept_indices(slicing: Slicing, node: Node) -> dict[str, list[Any]]:
    """Dimension -> indices kept along it, where some are dropped."""
    found: dict[str, list[Any]] = {}
    for dim in slicing.axes(node).labels:
        mask = slicing.mask(node, dim)
        if mask is not None and not mask.all():
            found[str(dim)] = np.flatnonzero(mask).tolist()
    for dim, ragged in slicing.axes(node).ragged.items():
        rows = slicing.alive[ragged.rows.numpy()]
        if not rows.all():
            found[str(dim)] = [np.flatnonzero(row).tolist() for row in rows]
    return found


def _kept_of_kept(before: list[Any], kept: list[Any]) -> list[Any]:
    """Indices among indices; lists of them, one for each part, where the parts keep different ones."""
    if before and isinstance(before[0], list):
        # `kept` has no list for a part that is dropped as a whole
        rows = iter(kept if kept and isinstance(kept[0], list) else [kept] * len(before))
        return [[row[i] for i in next(rows)] if row else [] for row in before]
    if kept and isinstance(kept[0], list):
        return [[before[i] for i in row] for row in kept]
    return [before[i] for i in kept]

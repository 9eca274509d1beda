"""Roles: tell what each output of a network says.

The user's word comes first, then the last ops in front of an output, then its values on a few images and the class
labels that fit. In doubt an output is a regression: its numbers are compared, and no class is guessed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.fx.node import Node
from torch.utils._pytree import tree_leaves

from pfpcli.errors import InputError
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.graph.role import Role
from pfpcli.outputs import evidence
from pfpcli.outputs.asked import TASKS, Asked
from pfpcli.outputs.heads import with_boxes, with_raw_scores
from pfpcli.outputs.kinds import KINDS
from pfpcli.outputs.structure import BOUNDED, LAYER, NOTHING, Said, said

#: Kinds that an op in front of the output makes certain, and that a task of classes keeps.
_CERTAIN = ("probabilities", "sigmoid")


@dataclass(frozen=True)
class Seen:
    """A few images, what the original makes of them, and the class labels of all images: int64[N] or None."""

    images: Tensor
    outputs: list[Tensor]
    labels: NDArray[np.int64] | None


def real(outputs: object) -> list[Tensor]:
    """Return the tensors of floating-point numbers among the outputs of a network."""
    return [x for x in tree_leaves(outputs) if isinstance(x, Tensor) and x.is_floating_point()]


def select(outputs: Sequence[Tensor], roles: Sequence[Role]) -> list[Tensor]:
    """Return the tensor of each role: an output, or a part of one."""
    return [part(outputs[role.output], role) for role in roles]


def run_network(network: Callable[..., object], x: Tensor, roles: Sequence[Role]) -> list[Tensor]:
    """Run a network on images, float[N, ...], and return the tensor of each role."""
    return select(real(network(x)), roles)


def part(output: Tensor, role: Role) -> Tensor:
    """Return the part of an output that a role is about, split by its anchors."""
    if role.part is not None:
        dim, start, stop = role.part
        output = output.narrow(dim, start, stop - start)
    return output if role.anchors is None else output.unflatten(role.anchors.dim, (role.anchors.count, -1))


def tell(graph: Graph, names: Sequence[str], asked: Asked | None = None, seen: Seen | None = None) -> tuple[Role, ...]:
    """Tell the role of each floating-point output, or of its parts.

    Args:
        graph: the network.
        names: of its outputs.
        asked: what the user says.
        seen: images and outputs; None goes by the structure alone.

    Raises:
        InputError: the user names an output that there is not, or an axis that it does not have.
    """
    asked = asked or Asked()
    outputs = [(node, name) for node, name in _named(graph, names) if node.meta["val"].is_floating_point()]
    _check_names(asked, [name for _, name in outputs])
    chosen = {graph.outputs[number]: (dim, op) for number, dim, op in graph.choices}
    roles: list[Role] = []
    free: list[bool] = []  # whether a role is a guess by values, which outputs of the same places may change
    for i, (node, name) in enumerate(outputs):
        values = None if seen is None else seen.outputs[i]
        given = next(((kind, axis) for wanted, kind, axis in asked.named if wanted == name), None)
        if given is not None:
            roles.append(_as_given(i, node, name, *given))
            free.append(False)
            continue
        for one in said(node):
            if node in chosen:
                one = _by_choice(one, node, *chosen[node])
            elif graph.is_undecided and one.kind == LAYER:
                one = replace(one, kind=NOTHING, why="ops behind it choose by it")
            title = name if one.part is None else f"{name}[{one.part.start}:{one.part.stop}]"
            bare = Role(i, title, "regression", None, one.why, one.part)
            sizes = shape(bare, node)
            roles.append(_told(bare, one, sizes, asked, seen, None if values is None else part(values, bare)))
            free.append(one.kind == LAYER or roles[-1].kind == "regression")
    return _with_heads(graph, roles, free, asked, seen)


def roles_of(graph: Graph) -> tuple[Role, ...]:
    """The roles of a graph; of a graph without roles, what its structure says."""
    return graph.roles or tell(graph, [node.name for node in graph.outputs])


def _named(graph: Graph, names: Sequence[str]) -> list[tuple[Node, str]]:
    outputs = [node for node in graph.outputs if isinstance(node.meta["val"], Tensor)]
    return [(node, names[i] if i < len(names) else node.name) for i, node in enumerate(outputs)]


def _check_names(asked: Asked, names: Sequence[str]) -> None:
    for name, kind, _ in asked.named:
        if name not in names:
            close = get_close_matches(name, names, 1)
            raise InputError(
                f"--output {name}={kind}: the network has no such output, it has {', '.join(names)}",
                f"did you mean `--output {(close or names)[0]}={kind}`?" if names else "leave it out",
            )


def _as_given(i: int, node: Node, name: str, kind: str, axis: int | None) -> Role:
    sizes = node.meta["val"].shape
    if KINDS[kind].has_classes:
        axis = axis if axis is not None else _default_axis(len(sizes))
        if not 0 < axis < len(sizes) or sizes[axis] < 2:
            raise InputError(
                f"--output {name}={kind}: the output has the shape {'×'.join(map(str, sizes))}, expected two or more "
                "classes along its axis",
                f"name the axis of the classes, e.g. `--output {name}={kind}:1`",
            )
    return Role(i, name, kind, axis if KINDS[kind].has_classes else None, "--output says so")


def _default_axis(rank: int) -> int:
    return 2 if rank == 3 else 1


def shape(role: Role, node: Node) -> tuple[int, ...]:
    """The shape of what a role is about, on the example of the graph; node: of its output."""
    sizes = [int(size) for size in node.meta["val"].shape]
    if role.part is not None:
        sizes[role.part.dim] = role.part.stop - role.part.start
    if role.anchors is not None:
        dim, count = role.anchors.dim, role.anchors.count
        sizes[dim : dim + 1] = [count, sizes[dim] // count]
    return tuple(sizes)


def _told(bare: Role, one: Said, sizes: Sequence[int], asked: Asked, seen: Seen | None, values: Tensor | None) -> Role:
    """The role by the task, the ops, the labels and the values, in this order."""
    if asked.task is not None and one.kind not in _CERTAIN:
        kind, why = TASKS[asked.task], f"--task {asked.task} says so"
        axis = one.axis if one.axis is not None else _default_axis(len(sizes))
        if KINDS[kind].has_classes and (len(sizes) <= axis or sizes[axis] < 2):
            kind = "sigmoid" if asked.task == "segment" else "regression"
        if kind != "image" or len(sizes) == 4:
            return replace(bare, kind=kind, axis=axis if KINDS[kind].has_classes else None, why=why)
    told, place, reason = _by_ops(one, sizes, seen, values)
    if told is None and seen is not None and values is not None:
        told, place, reason = _by_values(one, values, seen)
    elif told is None and one.kind == LAYER and len(sizes) == 2 and sizes[1] > 1:
        told, place, reason = "logits", 1, f"{one.why}; images tell more"
    if told is None:
        return replace(bare, why=f"nothing tells classes ({one.why})" if one.why else "nothing tells more")
    return replace(bare, kind=told, axis=place, why=reason)


def _by_choice(one: Said, node: Node, dim: int, op: str) -> Said:
    """What the ops say about an output by which an op behind the graph chooses one class."""
    if one.kind in _CERTAIN or one.part is not None:
        return one
    return Said("logits", dim % node.meta["val"].dim(), f"{op} behind it chooses")


def _by_ops(
    one: Said, sizes: Sequence[int], seen: Seen | None, values: Tensor | None
) -> tuple[str | None, int | None, str]:
    has_size = seen is not None and evidence.is_picture(tuple(sizes), tuple(seen.images.shape))
    # a mask of one channel is no picture, and three classes are none either
    is_scores = one.kind == "sigmoid" and len(sizes) > 1 and sizes[1] == 1
    if has_size and one.kind == LAYER:
        is_scores = sizes[1] == 1 or values is None or evidence.are_class_scores(values, 1)
    if has_size and one.kind in (BOUNDED, LAYER, "sigmoid") and not is_scores:
        return "image", None, f"{one.why}, in the channels and the size of the input"
    if one.kind in KINDS:
        if not KINDS[one.kind].has_classes:
            return one.kind, None, one.why
        if one.axis is not None and one.axis > 0 and sizes[one.axis] > 1:
            return one.kind, one.axis, f"{one.why} over {sizes[one.axis]} classes"
    return None, None, ""


def _by_values(one: Said, values: Tensor, seen: Seen) -> tuple[str | None, int | None, str]:
    if (axis := evidence.are_probabilities(values)) is not None:
        return "probabilities", axis, f"its rows of {values.shape[axis]} numbers sum to 1"
    if evidence.are_unit_vectors(values):
        return "embedding", None, "its rows have the norm 1"
    axis = evidence.class_axis(values, one.axis)
    # four numbers at many places are boxes far more often than classes, and parts of an output that joins several
    # things are told by their ops alone
    if one.kind != LAYER or axis is None or one.part is not None or (values.dim() > 2 and values.shape[axis] == 4):
        return None, None, ""
    if seen.labels is not None and axis == 1 and values.dim() == 2:
        return (
            "logits",
            axis,
            f"{one.why}, {values.shape[axis]} numbers for each image, and the images have class labels",
        )
    if evidence.are_class_scores(values, axis):
        return "logits", axis, f"{one.why}, and its {values.shape[axis]} numbers prefer one class as scores do"
    return None, None, ""


def _with_heads(
    graph: Graph, roles: list[Role], free: Sequence[bool], asked: Asked, seen: Seen | None
) -> tuple[Role, ...]:
    """The roles with those that outputs of the same places have beside each other.

    Args:
        graph: the network.
        roles: what each output says for itself.
        free: whether a role may change.
        asked: what the user says.
        seen: images and outputs, or None.
    """
    nodes = [node for node in graph.outputs if is_tensor(node) and node.meta["val"].is_floating_point()]
    image = graph.example[0].shape
    shapes = [shape(role, nodes[role.output]) for role in roles]
    if seen is not None and asked.task in (None, "detect"):
        roles = with_raw_scores(roles, shapes, free, image, select(seen.outputs, roles))
        shapes = [shape(role, nodes[role.output]) for role in roles]
    return tuple(with_boxes(roles, shapes, free, image, wanted=asked.task == "detect"))

"""Structure: what the last ops in front of an output say about it.

The walk goes from an output back through ops that only move or select numbers, and stops at the first op that says
something: a softmax, a sigmoid, a division by a norm, a pixel shuffle, a layer with weights. Where an output joins
parts that say different things, each part is told by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from torch.fx.node import Node

from pfpcli.graph.graph import is_constant, is_tensor
from pfpcli.graph.role import Part

#: What an op says that is not a kind of role: values within bounds, the result of a layer with weights, nothing.
BOUNDED, LAYER, NOTHING = "bounded", "layer", "nothing"
#: The most ops between an output and the op that says something.
_FAR = 64
#: The most ops between a division and the norm that it divides by.
_NORM = 6


@dataclass(frozen=True)
class Said:
    """What the ops say about an output or a part of it.

    Attributes:
        kind: a kind of role, or one of the words above.
        axis: the dimension of the classes; None where it is not known.
        why: the op, for people.
        part: the part of the output; None for all of it.
    """

    kind: str
    axis: int | None = None
    why: str = ""
    part: Part | None = None


def said(node: Node) -> list[Said]:
    """Return what the ops in front of an output say: one entry, or one for each part of the output."""
    return _said(node, _FAR)


def _said(node: Node, far: int) -> list[Said]:
    if not far or node.op != "call_function" or not is_tensor(node):
        return [Said(NOTHING, why="an input or a constant")]
    name = str(node.target).removeprefix("aten.").partition(".")[0]
    for names, rule in _RULES:
        if name in names:
            return rule(node, name, far - 1)
    source = _only_source(node)
    return _said(source, far - 1) if source is not None and name in _SELECTING else [Said(NOTHING, why=name)]


def _softmax(node: Node, name: str, far: int) -> list[Said]:
    kind = "logits" if "log" in name else "probabilities"
    return [Said(kind, int(node.args[1]) % _rank(node), "a log softmax" if "log" in name else "a softmax")]  # type: ignore[arg-type]


def _sigmoid(node: Node, name: str, far: int) -> list[Said]:
    return [Said("sigmoid", None, f"a {name}")]


def _bounded(node: Node, name: str, far: int) -> list[Said]:
    return [Said(BOUNDED, None, f"a {name}")]


def _shuffle(node: Node, name: str, far: int) -> list[Said]:
    return [Said("image", None, "a pixel shuffle")]


def _layer(node: Node, name: str, far: int) -> list[Said]:
    axis = 1 if "conv" in name else _rank(node) - 1
    return [Said(LAYER, axis, f"a layer with weights ({name})")]


def _norm(node: Node, name: str, far: int) -> list[Said]:
    """A division by the norm of what is divided makes an embedding; a division by a constant scales."""
    top, below = node.args[:2]
    if isinstance(top, Node) and isinstance(below, Node) and _is_norm_of(below, top, _NORM):
        return [Said("embedding", None, "an L2 normalisation")]
    return _scaled(node, name, far)


def _is_norm_of(node: Node, of: Node, far: int) -> bool:
    if node is of or not far or node.op != "call_function":
        return False
    if "norm" in str(node.target) and of in node.all_input_nodes:
        return True
    if "sqrt" in str(node.target) or "pow" in str(node.target):
        squares = {each for source in node.all_input_nodes for each in (source, *source.all_input_nodes)}
        if any(of in each.all_input_nodes for each in squares):
            return True
    return any(_is_norm_of(each, of, far - 1) for each in node.all_input_nodes)


def _scaled(node: Node, name: str, far: int) -> list[Said]:
    """A scaled image or bounded value stays one, and so does a sum of an image and something; scores do not."""
    sources = [each for each in node.all_input_nodes if is_tensor(each) and not is_constant(each)]
    found = [each for source in sources for each in _said(source, far)]
    kinds = {each.kind for each in found}
    if "image" in kinds and name.startswith(("add", "sub")):
        return [next(each for each in found if each.kind == "image")]
    if len(sources) == 1 and len(found) == 1 and (kinds <= {"image", BOUNDED} or kinds == {LAYER}):
        return found
    if name.startswith("add") and kinds == {LAYER} and len({each.axis for each in found}) == 1:
        return found[:1]  # scores of two resolutions
    return [Said(NOTHING, why=name)]


def _interpolated(node: Node, name: str, far: int) -> list[Said]:
    """A sum of a stack of weighted copies: how an ONNX file is read that resizes its scores."""
    stack = node.all_input_nodes[0]
    if "stack" not in str(stack.target) or list(node.args[1]) != [0]:  # type: ignore[arg-type]
        return [Said(NOTHING, why=name)]
    found = [one for each in stack.all_input_nodes for one in _said(each, far)]
    same = len({(each.kind, each.axis, each.part) for each in found}) == 1
    return found[:1] if same and found[0].kind == LAYER else [Said(NOTHING, why=name)]


def _joined(node: Node, name: str, far: int) -> list[Said]:
    parts = [each for each in node.args[0] if isinstance(each, Node)]  # type: ignore[union-attr]
    dim = (int(node.args[1]) if len(node.args) > 1 else 0) % _rank(node)  # type: ignore[arg-type]
    told = [_said(each, far) for each in parts]
    if len({tuple((one.kind, one.axis) for one in each) for each in told}) == 1 and (
        len(told[0]) == 1 or all(one.part is None or one.part.dim != dim for one in told[0])
    ):
        # levels of a detector, or numbers that all mean the same
        return told[0]
    found, start = [], 0
    for each, of in zip(told, parts, strict=True):
        stop = start + int(of.meta["val"].shape[dim])
        inner = [one for one in each if one.part is not None and one.part.dim == dim]
        if inner and len(inner) == len(each):
            found += [replace(one, part=Part(dim, start + one.part.start, start + one.part.stop)) for one in inner]  # type: ignore[union-attr]
        else:
            whole = each[0] if len(each) == 1 else Said(NOTHING, why=name)
            found.append(replace(whole, part=Part(dim, start, stop)))
        start = stop
    return _merged(found)


def _merged(found: Sequence[Said]) -> list[Said]:
    """Neighbouring parts that say the same are one part."""
    merged: list[Said] = []
    for each in found:
        last = merged[-1] if merged else None
        if last is not None and last.part and each.part and (last.kind, last.axis) == (each.kind, each.axis):
            merged[-1] = replace(last, part=Part(last.part.dim, last.part.start, each.part.stop))
        else:
            merged.append(each)
    return merged if len(merged) > 1 else [replace(merged[0], part=None)]


def _permuted(node: Node, name: str, far: int) -> list[Said]:
    source = node.args[0]
    assert isinstance(source, Node)
    rank = _rank(source)
    order = list(range(rank))
    if name == "permute":
        order = [int(each) % rank for each in node.args[1]]  # type: ignore[union-attr, arg-type]
    elif name in ("t", "numpy_T"):
        order.reverse()
    else:
        a, b = (int(each) % rank for each in node.args[1:3])  # type: ignore[arg-type]
        order[a], order[b] = order[b], order[a]
    place = {old: new for new, old in enumerate(order)}
    return [_moved(each, place.__getitem__) for each in _said(source, far)]


def _moved(one: Said, place: Callable[[int], int | None]) -> Said:
    axis = None if one.axis is None else place(one.axis)
    if one.part is None:
        return replace(one, axis=axis)
    dim = place(one.part.dim)
    return Said(NOTHING) if dim is None else replace(one, axis=axis, part=one.part._replace(dim=dim))


def _reshaped(node: Node, name: str, far: int) -> list[Said]:
    """A dimension keeps its place if the sizes before it, or after it, multiply to the same."""
    source = node.all_input_nodes[0]
    old, new = (tuple(map(int, each.meta["val"].shape)) for each in (source, node))

    def place(dim: int) -> int | None:
        for i, size in enumerate(new):
            is_same = size == old[dim] and _product(new[:i]) == _product(old[:dim])
            if is_same and _product(new[i + 1 :]) == _product(old[dim + 1 :]):
                return i
        return None

    found = [_moved(each, place) for each in _said(source, far)]
    if any(each.kind == NOTHING for each in found) and len(found) > 1:
        return [Said(NOTHING, why=name)]
    return found


def _product(sizes: Sequence[int]) -> int:
    product = 1
    for size in sizes:
        product *= size
    return product


def _rank(node: Node) -> int:
    return int(node.meta["val"].dim())


def _only_source(node: Node) -> Node | None:
    sources = [each for each in node.all_input_nodes if is_tensor(each) and not is_constant(each)]
    return sources[0] if len(sources) == 1 else None


def _passed(node: Node, name: str, far: int) -> list[Said]:
    source = node.all_input_nodes[0]
    found = _said(source, far) if is_tensor(source) else [Said(NOTHING, why=name)]
    return found if len(found) == 1 else [Said(NOTHING, why=name)]


_SELECTING = frozenset({"slice", "narrow", "index_select", "constant_pad_nd", "_to_copy", "to", "clone", "contiguous"})
#: Names of ops -> the rule that tells what they say.
_RULES: tuple[tuple[frozenset[str], Callable[[Node, str, int], list[Said]]], ...] = (
    (frozenset({"softmax", "_softmax", "log_softmax", "_log_softmax"}), _softmax),
    (frozenset({"sigmoid", "hardsigmoid"}), _sigmoid),
    (frozenset({"tanh", "clamp", "clip", "hardtanh", "clamp_min", "clamp_max"}), _bounded),
    (frozenset({"pixel_shuffle"}), _shuffle),
    (frozenset({"linear", "addmm", "mm", "matmul", "bmm", "convolution", "conv2d", "conv1d", "conv3d",
                "conv_transpose2d"}), _layer),
    (frozenset({"div", "true_divide"}), _norm),
    (frozenset({"add", "sub", "mul", "rsub"}), _scaled),
    (frozenset({"sum"}), _interpolated),
    (frozenset({"cat", "concat"}), _joined),
    (frozenset({"permute", "transpose", "t", "numpy_T", "movedim"}), _permuted),
    (frozenset({"view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze", "expand"}),
     _reshaped),
    (frozenset({"batch_norm", "_native_batch_norm_legit_no_training", "mean", "adaptive_avg_pool2d", "avg_pool2d",
                "upsample_bilinear2d", "upsample_nearest2d", "prelu", "getitem"}), _passed),
)  # fmt: skip

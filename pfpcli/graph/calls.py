"""The arguments of an ATen call, by the names in the schema of the op."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx.node import Node


def bind(node: Node) -> dict[str, Any]:
    """Return the arguments of a call by name, defaults included."""
    schema = node.target._schema  # type: ignore[union-attr]
    bound = {argument.name: argument.default_value for argument in schema.arguments if argument.has_default_value()}
    bound.update(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    return {**bound, **node.kwargs}


def rebind(node: Node, **changes: Any) -> None:
    """Replace arguments of a call, by name."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    args = list(node.args)
    kwargs = dict(node.kwargs)
    for name, value in changes.items():
        index = names.index(name)
        if index < len(args):
            args[index] = value
        else:
            kwargs[name] = value
    node.args, node.kwargs = tuple(args), kwargs


def is_pointwise(target: Any) -> bool:
    """Whether torch tags an op as pointwise: each element of the result depends only on the elements at its index."""
    return torch.Tag.pointwise in getattr(target, "tags", ())


def is_mutable(target: Any) -> bool:
    """Whether an op writes to one of its arguments."""
    schema = getattr(target, "_schema", None)
    return schema is not None and schema.is_mutable

"""Trainable: the tensors of a graph that training changes, as parameters."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from pfpcli.graph.graph import Graph, fetch, is_tensor


@contextmanager
def trainable(graph: Graph) -> Iterator[dict[str, nn.Parameter]]:
    """Turn the trained tensors into parameters with gradients for the length of a `with` block.

    These are all parameters, and all tensors that a call takes as its weight or bias: some files store those as
    buffers. The block gets them by one of their names.
    """
    names: dict[int, list[str]] = {}
    for name in dict.fromkeys(_trained(graph)):
        names.setdefault(id(fetch(graph.module, name)), []).append(name)
    before: list[Tensor] = [fetch(graph.module, aliases[0]) for aliases in names.values()]
    flags = [tensor.requires_grad for tensor in before]
    made = [tensor if isinstance(tensor, nn.Parameter) else nn.Parameter(tensor.detach()) for tensor in before]
    for aliases, parameter in zip(names.values(), made, strict=True):
        _replace(graph.module, aliases, parameter.requires_grad_(True))
    try:
        yield {aliases[0]: parameter for aliases, parameter in zip(names.values(), made, strict=True)}
    finally:
        for aliases, parameter, tensor, flag in zip(names.values(), made, before, flags, strict=True):
            parameter.requires_grad_(flag).grad = None
            _replace(graph.module, aliases, parameter if parameter is tensor else parameter.detach())


def _trained(graph: Graph) -> Iterator[str]:
    """The names of the tensors that training changes."""
    for node in graph.nodes:
        if node.op == "get_attr" and is_tensor(node) and graph.tensor(node).is_floating_point():
            uses = (use for user in node.users for use in _named_arguments(user) if use[1] is node)
            if isinstance(graph.tensor(node), nn.Parameter) or any(name in ("weight", "bias") for name, _ in uses):
                yield str(node.target)


def _named_arguments(call: Any) -> Iterator[tuple[str, Any]]:
    """The arguments of a call with their names in the op's schema."""
    schema = getattr(call.target, "_schema", None)
    if schema is not None:
        yield from zip((argument.name for argument in schema.arguments), call.args, strict=False)
        yield from call.kwargs.items()


def _replace(module: nn.Module, names: list[str], tensor: Tensor) -> None:
    """Register a tensor under the names of another tensor."""
    if fetch(module, names[0]) is tensor:
        return
    for name in names:
        path, _, leaf = name.rpartition(".")
        owner = module.get_submodule(path)
        delattr(owner, leaf)
        if isinstance(tensor, nn.Parameter):
            owner.register_parameter(leaf, tensor)
        else:
            owner.register_buffer(leaf, tensor)

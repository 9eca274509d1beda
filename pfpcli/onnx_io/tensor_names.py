"""Dotted names of the tensors of an ONNX network.

A constant with a dotted name in the file keeps it: "features.0.weight". Other constants get the name of the node that
reads them first, and their role there: "Conv_12.weight". Characters that could run as code become underscores.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from keyword import iskeyword

from pfpcli.graph.safe_names import UNSAFE
from pfpcli.onnx_io.nodes import FileNode

#: Index of an input of a layer -> the name of its parameter or buffer in torch.
_ROLES = {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "BatchNormalization", "InstanceNormalization", "LayerNormalization")


class TensorNames:
    """Hands out one name for each constant.

    Args:
        nodes: the nodes of the network.
        constants: names of the constants of the file.
        reserved: names that no part of a tensor's name may have, such as those of methods.
    """

    def __init__(self, nodes: Iterable[FileNode], constants: Iterable[str], reserved: Iterable[str]) -> None:
        self._reserved = frozenset(reserved)
        self._dotted = {name for name in constants if "." in name}
        self._readers: dict[str, tuple[FileNode, int]] = {}
        for node in nodes:
            for slot, name in enumerate(node.inputs):
                self._readers.setdefault(name, (node, slot))
        self._taken: set[str] = set()

    def of(self, name: str) -> str:
        """Return a dotted name that no other tensor has, and that no other name begins with."""
        path = name
        if name not in self._dotted and name in self._readers:
            node, slot = self._readers[name]
            role = _ROLES.get(slot) if node.op in _LAYERS else None
            path = f"{node.name}.{role or f'input{slot}'}"
        parts = [part for part in re.sub(r"[/:]+", ".", UNSAFE.sub("_", path)).split(".") if part] or ["value"]
        parts = [f"{part}_" if part in self._reserved or iskeyword(part) else part for part in parts]
        while self._is_below_tensor(parts):
            parts[0] += "_"
        while self._is_taken(parts):
            parts[-1] += "_"
        self._taken.update(".".join(parts[:i]) + "." for i in range(1, len(parts)))
        self._taken.add(".".join(parts))
        return ".".join(parts)

    def _is_below_tensor(self, parts: list[str]) -> bool:
        """Whether a tensor has the name of one of the modules."""
        return any(".".join(parts[:i]) in self._taken for i in range(1, len(parts)))

    def _is_taken(self, parts: list[str]) -> bool:
        """Whether a tensor or a module has this name."""
        path = ".".join(parts)
        return path in self._taken or f"{path}." in self._taken

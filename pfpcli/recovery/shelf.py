"""Shelf: the values of many batches between two visits, in memory as far as they fit and in a file beyond that."""

from __future__ import annotations

import io
import os
import tempfile
import weakref
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.fx.node import Node

#: The most bytes of values in memory: on a CPU, and on other devices, which have their own memory.
MOST_BYTES = 1 << 28
MOST_BYTES_ELSEWHERE = 1 << 32


class Shelf:
    """Keeps the values of nodes for some batches.

    The file has no name, so nothing is left of it after a crash. It lies where the system puts temporary files.

    Args:
        most: the most bytes in memory.
    """

    def __init__(self, most: int = MOST_BYTES) -> None:
        self._left = most

    def put(self, values: Mapping[Node, Any], before: Mapping[Node, Any] | None = None) -> dict[Node, Any]:
        """Return the values, those that do not fit into memory as what stands for them in a file.

        Args:
            values: node -> its value.
            before: what `take` was given. What lies in a file already is not written again.
        """
        found: dict[Node, Any] = {}
        file: _File | None = None
        for node, value in values.items():
            there = (before or {}).get(node)
            if isinstance(there, _Stored):
                found[node] = there
                continue
            if isinstance(value, Tensor) and value.nbytes > self._left:
                file = file or _File()
                found[node] = _Stored(file, value)
                continue
            self._left -= value.nbytes if isinstance(value, Tensor) else 0
            found[node] = value
        return found

    def take(self, values: Mapping[Node, Any], needed: Collection[Node]) -> dict[Node, Any]:
        """Return the values that `put` was given, which no longer count as kept; those that are needed in memory."""
        self._left += sum(value.nbytes for value in values.values() if isinstance(value, Tensor))
        return {node: read(value) if node in needed else value for node, value in values.items()}


def read(value: Any) -> Any:
    """Return a value of a shelf as it was."""
    return value.read() if isinstance(value, _Stored) else value


class _File:
    """A file without a name, which is deleted with the last value that is in it."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self.handle = os.dup(file.fileno())
        self.size = 0
        weakref.finalize(self, os.close, self.handle)


class _Stored:
    """A tensor in a file."""

    def __init__(self, file: _File, tensor: Tensor) -> None:
        self._file, self._at, self._bytes = file, file.size, tensor.nbytes
        self._like, self._shape = tensor.new_empty(0), tensor.shape
        data = memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        os.lseek(file.handle, file.size, os.SEEK_SET)
        while data:
            written = os.write(file.handle, data)
            file.size += written
            data = data[written:]

    def __len__(self) -> int:
        return self._shape[0]

    def read(self) -> Tensor:
        """Return the tensor.

        Raises:
            OSError: the file is shorter than what was written.
        """
        found = torch.empty(self._bytes, dtype=torch.uint8)
        data = memoryview(found.numpy().data)
        with io.FileIO(self._file.handle, closefd=False) as file:
            file.seek(self._at)
            while data:
                count = file.readinto(data)
                if not count:
                    raise OSError("a temporary file has become shorter")
                data = data[count:]
        return found.view(self._like.dtype).view(self._shape).to(self._like.device)

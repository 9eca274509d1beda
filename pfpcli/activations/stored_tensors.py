"""Stored tensors: tensors that do not fit into memory, in a file.

The file has no name, so nothing is left of it after a crash. It lies where the system puts temporary files.
"""

from __future__ import annotations

import io
import os
import tempfile
import weakref

import torch
from torch import Tensor

from pfpcli.errors import InputError


class NamelessFile:
    """A file without a name, which is deleted with the last value that is in it."""

    def __init__(self) -> None:
        with tempfile.TemporaryFile() as file:
            self.handle = os.dup(file.fileno())
        self.size = 0
        weakref.finalize(self, os.close, self.handle)


class StoredTensor:
    """A tensor in a file.

    Raises:
        InputError: the disk is full, or the system allows no file of this size.
    """

    def __init__(self, file: NamelessFile, tensor: Tensor) -> None:
        self._file, self._at, self._bytes = file, file.size, tensor.nbytes
        self._like, self._shape = tensor.new_empty(0), tensor.shape
        # a tensor of one number counts as contiguous whatever its strides are, and has no view in bytes with most
        flat = tensor.detach().cpu().contiguous().as_strided((tensor.numel(),), (1,))
        data = memoryview(flat.view(torch.uint8).numpy().data)
        os.lseek(file.handle, file.size, os.SEEK_SET)
        while data:
            try:
                written = os.write(file.handle, data)
            except OSError as error:
                raise InputError(
                    f"{tempfile.gettempdir()}: {error.strerror}, while temporary values were written there",
                    "make room there, or name another folder for them, e.g. `export TMPDIR=~/tmp`",
                ) from error
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

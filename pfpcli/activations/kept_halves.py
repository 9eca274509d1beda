"""Kept halves: what layers read of some images, kept in a file from one step to the next.

The images need not run again for a layer that an earlier step has looked at.
"""

from __future__ import annotations

from dataclasses import fields

from torch import Tensor

from pfpcli import processes
from pfpcli.activations.centred import Centred
from pfpcli.activations.row_fits import StoredRows
from pfpcli.activations.stored_tensors import NamelessFile, StoredTensor
from pfpcli.channels.reading_layers import Reader
from pfpcli.errors import InputError

#: X'X, or X, of the images with an even and with an odd index.
Halves = tuple[Centred, Centred] | tuple[StoredRows, StoredRows]
#: The most bytes that are kept.
MOST = 1 << 30


class KeptHalves:
    """What layers read of the same images.

    Layers beyond the limit are not kept: they have to be looked at again.
    """

    def __init__(self) -> None:
        self._stored: dict[Reader, tuple[_Stored, _Stored]] = {}
        self._left = MOST

    def put(self, reader: Reader, halves: Halves) -> None:
        """Keep what a layer reads, as far as there is room on the disk. All processes keep the same layers."""
        size = sum(tensor.nbytes for half in halves for tensor in _tensors(half))
        if size > self._left:
            return
        try:
            stored = tuple(_Stored(half) for half in halves)
        except InputError:
            stored = ()
        if processes.largest(int(not stored)):  # a full disk: nothing more is kept
            self._left = 0
            return
        first, second = stored
        self._stored[reader] = first, second
        self._left -= size

    def get(self, reader: Reader) -> Halves | None:
        """Return what a layer reads; None if it is not kept."""
        if reader not in self._stored:
            return None
        first, second = (each.read() for each in self._stored[reader])
        if isinstance(first, StoredRows) and isinstance(second, StoredRows):
            return first, second
        assert isinstance(first, Centred)
        assert isinstance(second, Centred)
        return first, second


def _tensors(half: Centred | StoredRows) -> list[Tensor]:
    return [getattr(half, field.name) for field in fields(half)]


class _Stored:
    """One half in a file."""

    def __init__(self, half: Centred | StoredRows) -> None:
        file = NamelessFile()
        self._type = type(half)
        self._tensors = [StoredTensor(file, tensor) for tensor in _tensors(half)]

    def read(self) -> Centred | StoredRows:
        """Return the half."""
        return self._type(*(tensor.read() for tensor in self._tensors))

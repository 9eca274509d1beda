"""Finished: what a job that writes a folder returns."""

from __future__ import annotations

from typing import Generic, NamedTuple, TypeVar

from torch import nn

_R = TypeVar("_R")


class Finished(NamedTuple, Generic[_R]):
    """A finished job.

    Attributes:
        record: what it did.
        folder: path of the folder that it wrote, as typed or relative to the working directory.
        module: the user's own module with the smaller tensors, None where it does not fit them.
    """

    record: _R
    folder: str
    module: nn.Module | None = None

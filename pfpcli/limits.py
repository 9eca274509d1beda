"""Limits of what reading a file may take: memory, and sizes that only the file names.

A file of a few kilobytes can name sizes of terabytes. Every size is compared with a limit before anything of that size
is allocated; `bounded_memory` catches what no comparison catches.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pfpcli.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

#: Reading a file may take this many bytes, and this many times its size.
ALLOWANCE, TIMES = 4 << 30, 6
#: The members of an archive may unpack to this many bytes, and to this many times the size of the archive.
UNPACKED, UNPACKED_TIMES = 1 << 30, 20
#: The most bytes of a document: a record, a plan, a table of times.
DOCUMENT = 1 << 28
#: The most numbers in one input of the network, and in a tensor that is not stored in full.
INPUT, VIRTUAL = 1 << 28, 1 << 24
#: The most numbers in a value that the network computes from an input.
VALUE = 1 << 30


@contextlib.contextmanager
def bounded_memory(name: str, size: int) -> Iterator[None]:
    """Limit the memory that a block may allocate. On systems other than Linux there is no limit.

    Args:
        name: name of the file that is read in the block, for the message.
        size: its size in bytes.

    Raises:
        InputError: the block wanted more.
    """
    allowed = ALLOWANCE + TIMES * size
    try:
        import resource

        in_use = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        limit = min(in_use + allowed, *(each for each in before if each != resource.RLIM_INFINITY), _MOST)
        resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    except (ImportError, OSError, ValueError):
        yield
        return
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(
            f"{name}: reading it takes more than {allowed >> 20:,} MB of memory, for a file of {size:,} bytes",
            "save it again; if it is that large, there is no way to read it here",
        ) from error
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


_MOST = (1 << 63) - 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory, of this machine or of a device that torch computes on."""
    # torch.OutOfMemoryError by its name: this module does not import torch
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "can't allocate memory" in str(error)
    )


def read_document(path: Path) -> bytes:
    """Return the content of a document.

    Raises:
        FileNotFoundError: there is none.
        InputError: it is no file (a device or a pipe would be read for ever), or larger than `DOCUMENT`.
        OSError: it cannot be read.
    """
    check_file(path)
    size = path.stat().st_size
    if size > DOCUMENT:
        raise InputError(f"{path.name}: {size:,} bytes, expected at most {DOCUMENT:,}", "copy or make it again")
    return path.read_bytes()


def check_file(path: Path) -> None:
    """Refuse what exists and is no file: a folder, a device, a pipe.

    Raises:
        InputError: it is something else.
    """
    if path.exists() and not path.is_file():
        raise InputError(f"{path.name}: no file, but a folder, a device or a pipe", "pass a file")


def check_unpacked(name: str, size: int, unpacked: int) -> None:
    """Check what the members of an archive unpack to.

    Args:
        name: name of the archive, for the message.
        size: its size in bytes.
        unpacked: bytes of all its members.

    Raises:
        InputError: it is far more than the archive.
    """
    if unpacked > UNPACKED and unpacked > UNPACKED_TIMES * size:
        raise InputError(
            f"{name}: unpacks to {unpacked:,} bytes, {unpacked // max(1, size):,} times its size",
            "save it again, uncompressed as torch.save and numpy.save do",
        )


def check_input(name: str, shape: Sequence[int]) -> None:
    """Check that an input of the network is not too large to be made.

    Args:
        name: name of the file, for the message.
        shape: of the input, with the batch.

    Raises:
        InputError: it has more than `INPUT` numbers.
    """
    if math.prod(shape) > INPUT:
        raise InputError(
            f"{name}: one input is {'×'.join(map(str, shape))}; pfp makes inputs of at most {INPUT:,} numbers",
            "export it for a smaller batch or image, or pass --input-size",
        )


def check_value(name: str, op: str, shape: Sequence[int]) -> None:
    """Check that a value that the network computes is not too large.

    Args:
        name: name of the file, for the message.
        op: what computes the value.
        shape: of the value.

    Raises:
        InputError: it has more than `VALUE` numbers.
    """
    sizes = [int(size) for size in shape]
    if math.prod(sizes) > VALUE:
        raise InputError(
            f"{name}: {op} computes {'×'.join(map(str, sizes))}; pfp computes at most {VALUE:,} numbers",
            "pass a smaller --input-size, or export it for a smaller image",
        )


def check_stored(name: str, tensor: str, value: Tensor) -> None:
    """Check that a tensor lies within its storage, and is about as large, since copies of it are stored in full.

    Args:
        name: name of the file, for the message.
        tensor: name of the tensor.
        value: the tensor.

    Raises:
        InputError: it reaches beyond its storage, or has more than `VIRTUAL` numbers, of which most are not stored.
    """
    stored = value.untyped_storage().nbytes() // value.element_size()
    last = value.storage_offset() + sum((n - 1) * step for n, step in zip(value.shape, value.stride(), strict=True))
    if value.numel() and last >= stored:
        raise InputError(
            f"{name}: {tensor} needs {last + 1:,} numbers and stores {stored:,}", "copy or download it again"
        )
    if value.numel() > VIRTUAL and value.numel() > 2 * stored:
        raise InputError(
            f"{name}: {tensor} is {'×'.join(map(str, value.shape))} and stores {stored:,} numbers only",
            "save it again, with the tensors in full (`tensor.contiguous()`)",
        )

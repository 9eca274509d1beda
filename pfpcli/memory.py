"""Memory: how much the process holds, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

#: Parameters of `mallopt` (malloc.h of glibc).
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
#: The C library keeps up to this many freed bytes, and takes blocks up to the second number from them.
_KEPT, _LARGEST = 1 << 28, 1 << 25
#: Between blocks that are in use it keeps any number of freed bytes. `give_back_if_grown` does nothing until a process
#: has grown by the first number since `keep_freed`, and by the second one since `give_back`.
_ALLOWED, _GROWN = 10 << 26, 1 << 27


#: What the process held at `keep_freed`, and after the last `give_back`.
_held = {"began": 0, "returned": 0}


def held() -> int | None:
    """Return the bytes of memory that the process holds now; None where the system does not tell."""
    return _status("VmRSS")


def peak() -> int | None:
    """Return the most bytes of memory that the process has held since `forget_peak`; None as for `held`."""
    return _status("VmHWM")


def forget_peak() -> None:
    """Start counting the peak anew, where the system can."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return


def keep_freed() -> None:
    """Let the C library keep freed memory until `give_back`: what one layer has freed, the next layer takes.

    Otherwise it goes back to the system, which clears every page that it gives: a tenth of a forward pass.
    """
    adjust = _function("mallopt")
    if adjust is not None:
        adjust(_TRIM_THRESHOLD, _KEPT)
        adjust(_MMAP_THRESHOLD, _LARGEST)
        _held["began"] = held() or 0


@contextmanager
def set_aside() -> Iterator[None]:
    """Leave out of `drop_cycles` what is there before a `with` block: it then looks at the objects of the block alone.

    The modules that are loaded, and the classes and functions in them, are most objects of a process.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def drop_cycles() -> None:
    """Free what only refers to itself.

    Such is a network: its nodes know each other. Python looks for it when it has made enough new objects, whatever
    their size, and a few networks of 100 MB each are few objects.
    """
    gc.collect()


def give_back() -> None:
    """Give freed memory back to the system; the C library would keep hundreds of megabytes of small tensors."""
    trim = _function("malloc_trim")
    if trim is not None:
        trim(0)
        _held["returned"] = held() or 0


def drop_and_give_back() -> None:
    """Free what only refers to itself, networks most of all, and give its memory back to the system."""
    drop_cycles()
    give_back()


def give_back_if_grown() -> None:
    """Give freed memory back if the process has grown much, for loops with large tensors: it takes time."""
    if (held() or 0) > max(_held["began"] + _ALLOWED, _held["returned"] + _GROWN):
        give_back()


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


@cache
def _function(name: str) -> ctypes._NamedFuncPointer | None:
    """Return a function of the C library that only glibc has."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform.startswith("linux") else None

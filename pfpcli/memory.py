"""Memory: how much the process holds, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import sys
from functools import cache
from pathlib import Path


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


def give_back() -> None:
    """Give freed memory back to the system; the C library would keep hundreds of megabytes of small tensors."""
    trim = _trim()
    if trim is not None:
        trim(0)


def _status(name: str) -> int | None:
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), None)


@cache
def _trim() -> ctypes._NamedFuncPointer | None:
    """Return `malloc_trim` of the C library, which only glibc has."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform.startswith("linux") else None

"""Kernel: the innermost loop of the sensitivity in C++ (shares.cpp), built with the first scoring on a CPU.

If there is no compiler, or the build fails, `pfp` computes the same numbers with torch alone, more slowly and equal
within rounding. The library is kept in the cache folder; its name is a hash of the source, the flags and the CPU, and
its checksum lies beside it. A library that others can write to is not loaded. This package may import `cache_folder`
only.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.cache_folder import cache_folder, is_private

#: The numbers of patches and of outputs are padded to multiples of this; BLOCK in shares.cpp.
_BLOCK = 16
_SOURCE = Path(__file__).with_name("shares.cpp")
#: Maxima are computed in any order. No -ffast-math: a library that is linked with it makes the whole process flush
#: small numbers to 0.
_FLAGS = ("-O3", "-ffinite-math-only", "-fno-signed-zeros", "-fno-trapping-math", "-fPIC", "-shared")
#: Seconds after which the compiler is stopped.
_PATIENCE = 60

#: `share(x, weight, positive, negative, known)`, see `_largest_shares`.
Share = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def about() -> str:
    """Return how sensitivities are computed on a CPU, for the record."""
    return "compiled" if _library() else "torch (no C++ compiler found)"


def largest_shares(x: Tensor) -> Share | None:
    """Return the function that computes the largest shares of such inputs; None if only torch can."""
    return _largest_shares if x.device.type == "cpu" and x.dtype == torch.float32 and _library() else None


def _largest_shares(
    x: Tensor, weight: Tensor, positive: Tensor, negative: Tensor, known: Tensor, *, bounded: bool = True
) -> Tensor:
    """Return the largest share of each channel in any output, or what is known if that is more: float32[G, J].

    Args:
        x: float32[G, J, R, P], not negative.
        weight: float32[G, O, J, R].
        positive: float32[G, O, P], 1 over the sum of the positive terms of each output; 0 where a share counts as 0.
        negative: float32[G, O, P], the same for the negative terms.
        known: float32[G, J], shares that were found before: what cannot be larger is skipped.
        bounded: whether to skip anything.
    """
    library = _library()
    assert library is not None
    groups, channels, kernel, patches = x.shape
    more = -weight.shape[1] % _BLOCK
    x, positive, negative = (
        _padded(t, -patches % _BLOCK, rows) for t, rows in ((x, 0), (positive, more), (negative, more))
    )
    by_channel = F.pad(weight.permute(0, 2, 3, 1), (0, more))
    up, down = by_channel.clamp(min=0).contiguous(), by_channel.neg().clamp_(min=0).contiguous()
    largest = known.clone()
    threads = torch.get_num_threads()
    step = max(1, -(-channels // threads)) if groups < threads else channels

    def part(group: int, first: int) -> None:
        arrays = (x[group], up[group], down[group], positive[group], negative[group], largest[group])
        sizes = (channels, up.shape[3], kernel, x.shape[3], first, min(channels, first + step), int(bounded))
        library.largest_shares(*(t.data_ptr() for t in arrays), *sizes)

    parts = [(group, first) for group in range(groups) for first in range(0, channels, step)]
    with ThreadPoolExecutor(threads) as pool:  # ctypes releases the interpreter lock while the library runs
        for done in [pool.submit(part, *where) for where in parts]:
            done.result()
    return largest


def _padded(tensor: Tensor, columns: int, rows: int) -> Tensor:
    """Return a tensor with more columns and rows of zeros, contiguous; a copy only where one is needed."""
    # padding keeps the order of the dimensions in memory, which need not be that of the kernel
    return (F.pad(tensor, (0, columns, 0, rows)) if columns or rows else tensor).contiguous()


@cache
def _library() -> ctypes.CDLL | None:
    """Return the library, for this CPU or else for any CPU of its kind; None if it cannot be built or loaded."""
    return next(filter(None, map(_loaded, [("-march=native",), ()] if _cpu() else [()])), None)


def _loaded(flags: tuple[str, ...]) -> ctypes.CDLL | None:
    """Return the library, built with some flags besides the usual ones; None if it cannot be built or loaded."""
    compiler = next((path for name in ("c++", "g++", "clang++") if (path := shutil.which(name))), None)
    if compiler is None or os.name == "nt":
        return None
    try:
        library = ctypes.CDLL(str(_built(compiler, (*_FLAGS, *flags))))
    except (OSError, subprocess.SubprocessError):
        return None
    library.largest_shares.argtypes = [ctypes.c_void_p] * 6 + [ctypes.c_long] * 7
    library.largest_shares.restype = None
    return library


def _cpu() -> str:
    """Return the features of this CPU, empty if unknown: other CPUs that share the folder need their own library."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


def _built(compiler: str, flags: tuple[str, ...]) -> Path:
    """Return the path of the library, which is built if it is not there or not what was built.

    Raises:
        OSError: others can write to the library or its folder, so that it may hold anybody's code.
    """
    made_of = "\n".join([_SOURCE.read_text(encoding="utf-8"), *flags, platform.machine(), _cpu()])
    library = cache_folder() / f"shares-{hashlib.sha256(made_of.encode()).hexdigest()[:16]}.so"
    checksum = library.with_suffix(".sha256")
    if not (library.exists() and checksum.exists() and checksum.read_text(encoding="ascii") == _sha256(library)):
        cache_folder().mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = library.with_name(f".{library.name}.{os.getpid()}")
        command = [compiler, *flags, "-o", str(draft), str(_SOURCE)]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=_PATIENCE)
            draft.chmod(0o700)
            checksum.write_text(_sha256(draft), encoding="ascii")
            draft.replace(library)
        finally:
            draft.unlink(missing_ok=True)
    if not is_private(library):
        raise PermissionError(f"{library.parent.name}: others can write to it")
    return library


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()

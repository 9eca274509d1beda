"""The cache folder: files that pfp keeps between runs and can always make again.

Some files decide what a run comes to without being measured again: the steps and the settings of an interrupted run.
They are read only if this user alone can have written them (`read_private`), and the steps only if they are whole and
have the name that they were written under (`read_sealed`).
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path


def cache_folder() -> Path:
    """The path of the cache folder: $PFP_CACHE, or `pfp` in the user's cache folder.

    A user without a home (a container with an unknown user id) has a temporary one until the process ends.
    """
    named = os.environ.get("PFP_CACHE")
    if named:
        return Path(named)
    caches = os.environ.get("XDG_CACHE_HOME")
    try:
        return Path(caches or Path.home() / ".cache") / "pfp"
    except RuntimeError:
        return _temporary()


@cache
def _temporary() -> Path:
    folder = tempfile.mkdtemp(prefix="pfp-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def is_private(path: Path) -> bool:
    """Whether a file and its folder belong to this user, and nobody else can write to them."""
    return all(
        status.st_uid == os.getuid() and not status.st_mode & 0o022 for status in (path.stat(), path.parent.stat())
    )


def make_private(folder: Path) -> None:
    """Make a folder in the cache that nobody else can read.

    Raises:
        OSError: it cannot be made, or somebody else made it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(f"{folder.name}: others can write to it")


def read_private(path: Path) -> bytes:
    """Return the content of a file that this user alone can have written.

    Raises:
        OSError: there is none, it is a link, a device or a pipe, or others can write to it or its folder.
    """
    if not stat.S_ISREG(path.lstat().st_mode) or not is_private(path):
        raise PermissionError(f"{path.name}: no file of this user alone")
    return path.read_bytes()


def replace(path: Path, *content: bytes) -> None:
    """Write a file in the cache that nobody else can read; a kill or a full disk leaves the one before, or none.

    Args:
        path: the file.
        content: its parts, in order.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(draft, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.writelines(content)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read_sealed(path: Path) -> bytes:
    """Return what `write_sealed` has written under this very name.

    Raises:
        OSError: as `read_private`, or the file is not as it was written.
    """
    held = read_private(path)
    seal, content = held[:_SEAL], held[_SEAL:]
    if seal != _seal(path.name, content):
        raise OSError(f"{path.name}: not as it was written")
    return content


def write_sealed(path: Path, content: bytes) -> None:
    """Write a file in a private folder of the cache, with a hash of its content and its name.

    Raises:
        OSError: it cannot be written, or the folder is somebody else's.
    """
    make_private(path.parent)
    replace(path, _seal(path.name, content), content)


def _seal(name: str, content: bytes) -> bytes:
    seal = hashlib.sha256(name.encode() + b"\0")
    seal.update(content)
    return seal.digest()


#: Bytes of a seal.
_SEAL = hashlib.sha256().digest_size

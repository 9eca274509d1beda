"""The cache folder: files that pfp keeps between runs and can always make again."""

from __future__ import annotations

import atexit
import os
import shutil
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

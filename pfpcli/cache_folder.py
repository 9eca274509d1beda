"""The cache folder: files that pfp keeps between runs and can always make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """The path of the cache folder: $PFP_CACHE, or `pfp` in the user's cache folder."""
    named = os.environ.get("PFP_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pfp"

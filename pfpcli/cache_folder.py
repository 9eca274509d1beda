"""The cache folder: what pfp keeps between runs and can make again."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """Where is kept what can be made again: $PFP_CACHE, or pfp in the user's cache folder."""
    named = os.environ.get("PFP_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pfp"

"""The cache of scores: its keys cover every source file of the package, wherever it lies."""

from __future__ import annotations

from pathlib import Path

import pfpcli
from pfpcli.jobs import cache


def test_the_key_covers_the_source_of_every_package() -> None:
    read = list(cache._program())
    sources = [path.read_bytes() for path in Path(pfpcli.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    assert all(source in read for source in sources)

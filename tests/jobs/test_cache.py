"""The cache of scores: its keys cover every source file of the package, wherever it lies."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pfpcli
from distilled import case, undecided
from pfpcli.jobs import cache


def test_the_key_covers_the_source_of_every_package() -> None:
    read = list(cache._program())
    sources = [path.read_bytes() for path in Path(pfpcli.__file__).parent.rglob("*.py")]
    assert len(sources) > 100
    assert all(source in read for source in sources)


def test_curves_that_were_fitted_to_or_measured_on_other_images_have_another_key(tmp_path: Path) -> None:
    division = case(undecided(), tmp_path).division
    others = (replace(division, fitted=division.fitted[:-1]), replace(division, checked=division.checked[:-1]))
    keys = [cache.key_of_curves("scores", each, []) for each in (division, *others, division)]
    assert keys[0] == keys[3]
    assert len(set(keys)) == 3

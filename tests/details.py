"""Details made by hand, with numbers that do not change, for the tests of records and reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pfpcli.records.details import Behaviour, ChangedImage, ClassCount, Details, GroupCurve, GroupScores
from runs import BLOCKS

#: A picture of one pixel.
PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def details(**changes: Any) -> Details:
    """Return the details of `runs.run`: falling scores, a curve for each group, and two images that changed."""
    names = [f"layer{n // 2 + 1}.{n % 2}.conv1" for n in range(len(BLOCKS))]
    groups = [
        GroupScores(name, [1 / (i + 1) for i in range(size)], list(range(kept, size)))
        for name, (size, kept) in zip(names, BLOCKS, strict=True)
    ]
    curves = [
        GroupCurve(name, size, [size - 2, size // 2, 2], {"distance": [0.001, 0.02, 0.5], "error": [0.01, 0.1, 0.9]})
        for name, (size, _) in zip(names, BLOCKS, strict=True)
    ]
    changed = [
        ChangedImage("cat/1.png", PIXEL, "cat (80 %)", "dog (60 %)", "cat", 0.7),
        ChangedImage("dog/2.png", PIXEL, "", "", "", 0.2, [PIXEL, PIXEL, PIXEL]),
    ]
    classes = [ClassCount("cat", 100, 90, 70), ClassCount("dog", 156, 143, 143)]
    behaviour = Behaviour("linear", "by distance", "images", True, 12, 256, classes, changed)
    return replace(Details(groups, curves, behaviour), **changes)

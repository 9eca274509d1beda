"""The report of a network with more outputs than fit in a few lines."""

from __future__ import annotations

from pfpcli.records.parts import OutputQuality, Quality
from pfpcli.report.run import render
from runs import run


def output(name: str, metric: str, after: float) -> OutputQuality:
    return OutputQuality(name, "boxes", None, "", metric, "as the original", 1.0, after, {})


def test_nothing_is_said_of_the_outputs_that_are_left_out_but_how_many_they_are() -> None:
    # a detector counts as one; its parts, which may look worse, come last
    levels = [output(f"score{i}", "similarity", 0.4) for i in range(3)]
    found = [output("detector", "places", 0.6), *(output(f"marks{i}", "similarity", 0.8) for i in range(4)), *levels]
    quality = Quality("places", 1.0, 0.6, None, 64, "images", 0.5, meaning="places", output="detector", outputs=found)
    lines = [" ".join(line.split()) for line in render(run(quality=quality)).splitlines()]
    assert "similarity – 80.0 % marks3" in lines
    assert "3 more outputs: --all" in lines
    assert not any("score" in line for line in lines)

"""Scatters: the quality of runs and their files of lower precision against each of the costs that all runs have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from pfpcli.records.compared_runs import FileCompared, RunCompared, RunsCompared
from pfpcli.records.measures import BYTES, COSTS, COUNT, MILLISECONDS, NUMBER, SHARE
from pfpcli.report.chart import tick_text, ticks
from pfpcli.report.compared_runs import HEADINGS, unit
from pfpcli.report.html.views import Mark, Point, Scatter
from pfpcli.report.measures import spelled

_WIDTH, _HEIGHT = 280, 256
_LEFT, _RIGHT, _TOP, _BOTTOM = 50, 264, 10, 208
#: Pixels for a digit of a label, its height, and the space between the middle of a point and its label.
_DIGIT, _LABEL_HEIGHT, _BESIDE = 6.4, 11.0, 6.0
#: Unit -> its scales, the largest first: number that is shown as 1, and its name on an axis.
_SCALES: dict[str, tuple[tuple[float, str], ...]] = {
    SHARE: ((0.01, "%"),),
    COUNT: ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, "")),
    BYTES: ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1, "B")),
    MILLISECONDS: ((1, "ms"),),
    NUMBER: ((1, ""),),
}
#: State of a point -> its mark around (0, 0), as a path; the states first that others may hide.
MARKS = {
    "failed": "M-4 -4L4 4M-4 4L4 -4",
    "other": "M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z",
    "original": "M0 -5.5L5.5 0L0 5.5L-5.5 0Z",
    "front": "M-4.5 0A4.5 4.5 0 1 0 4.5 0A4.5 4.5 0 1 0 -4.5 0Z",
}
#: Precision below float32 -> the mark of its files; their states are "front" and "other".
FILE_MARKS = {"int8": "M-3.8 -3.8H3.8V3.8H-3.8Z", "fp16": "M0 -5L4.6 3.4H-4.6Z"}
_ORDER = list(MARKS)


def scatters(found: RunsCompared, links: Sequence[str]) -> list[Scatter]:
    """Return a scatter for each cost that all runs have; none where the runs have no quality in common.

    Args:
        found: the comparison.
        links: address of the page of each run, or "".
    """
    if not found.quality:
        return []
    return [_scatter(found, cost, links) for cost in found.common]


@dataclass(frozen=True)
class _Axis:
    """An axis: its name, ticks in its scale, and the pixels of its ends."""

    name: str
    ticks: Sequence[float]
    scale: float
    first: int
    last: int

    def place(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high = self.ticks[0], self.ticks[-1]
        return self.first + (value / self.scale - low) / (high - low) * (self.last - self.first)

    def marks(self) -> Iterator[tuple[float, str]]:
        """Yield the pixel and the text of each tick."""
        for tick in self.ticks:
            yield self.place(tick * self.scale), tick_text(tick, self.ticks)


def _axis(name: str, of: str, values: Sequence[float], first: int, last: int) -> _Axis:
    """Return an axis that spans values of a unit; where they are all the same, a part around them."""
    largest = max(map(abs, values))
    scale, spelling = next((each for each in _SCALES[of] if largest >= each[0]), _SCALES[of][-1])
    low, high = min(values) / scale, max(values) / scale
    if high - low <= 1e-9 * (abs(high) or 1):
        low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
    return _Axis(f"{name}, {spelling}" if spelling else name, ticks([low, high]), scale, first, last)


@dataclass(frozen=True)
class _Drawing:
    """What turns figures into points: the comparison, a cost, and the axes."""

    found: RunsCompared
    cost: str
    x_axis: _Axis
    y_axis: _Axis

    def point(self, of: Mapping[str, float], state: str, mark: str, name: str, link: str) -> Point:
        """Return the point of a network or a file with these measures."""
        cost, quality = of[self.cost], of[self.found.quality]
        quality_unit, cost_unit = unit(self.found, self.found.runs[0]), COSTS[self.cost].unit
        figures = f"{spelled(quality_unit, quality)}, {HEADINGS[self.cost]} {spelled(cost_unit, cost)}"
        words = {"failed": ", failed", "front": ", on the front"}.get(state, "")
        return Point(
            self.x_axis.place(cost), self.y_axis.place(quality), state, mark, f"{name}: {figures}{words}", link
        )

    def run(self, run: RunCompared, name: str, link: str) -> Point:
        """Return the point of a run."""
        state = "failed" if run.status == "failed" else self._state(run)
        return self.point(run.measures, state, MARKS[state], name, link)

    def files(self, run: RunCompared, name: str, link: str) -> list[Point]:
        """Return the points of the files of a run whose quality and cost are known."""
        return [
            self.point(file.measures, self._state(file), FILE_MARKS[file.name], f"{name} {file.name}", link)
            for file in run.files
            if self.is_known(file.measures)
        ]

    def is_known(self, of: Mapping[str, float]) -> bool:
        """Whether measures have the cost and the quality."""
        return {self.cost, self.found.quality} <= of.keys()

    def _state(self, of: RunCompared | FileCompared) -> str:
        """Return the state of a point; a single run has no front."""
        return "front" if len(self.found.runs) > 1 and self.cost in of.front else "other"


def _scatter(found: RunsCompared, cost: str, links: Sequence[str]) -> Scatter:
    measured = [each.measures for run in found.runs for each in run.in_all_precisions]
    known = [each for each in (*measured, found.original) if {cost, found.quality} <= each.keys()]
    x_axis = _axis(HEADINGS[cost], COSTS[cost].unit, [each[cost] for each in known], _LEFT, _RIGHT)
    quality_unit = unit(found, found.runs[0])
    y_axis = _axis(found.quality, quality_unit, [each[found.quality] for each in known], _BOTTOM, _TOP)
    draw = _Drawing(found, cost, x_axis, y_axis)
    named = [
        (run, f"{number} {run.name}", link) for number, (run, link) in enumerate(zip(found.runs, links, strict=True), 1)
    ]
    runs = [draw.run(*each) for each in named]
    files = [draw.files(*each) for each in named]
    points = [*runs, *chain(*files)]
    is_shown = draw.is_known(found.original)
    originals = [draw.point(found.original, "original", MARKS["original"], "original", "")] if is_shown else []
    front = sorted((each.x, -each.y) for each in points if each.state == "front")
    return Scatter(
        _WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM,
        name=HEADINGS[cost],
        x_axis=x_axis.name,
        y_axis=y_axis.name,
        columns=[Mark(pixel, _BOTTOM + 16, text) for pixel, text in x_axis.marks()],
        rows=[Mark(_LEFT - 7, pixel, text) for pixel, text in y_axis.marks()],
        front="M" + "L".join(f"{x:.1f} {-y:.1f}" for x, y in front) if len(front) > 1 else "",
        joins="".join(
            f"M{run.x:.1f} {run.y:.1f}L{file.x:.1f} {file.y:.1f}"
            for run, its in zip(runs, files, strict=True)
            for file in its
        ),
        points=sorted([*points, *originals], key=lambda each: _ORDER.index(each.state)),
        labels=_labels(runs, points),
    )  # fmt: skip


def _labels(runs: Sequence[Point], points: Sequence[Point]) -> list[Mark]:
    """Return the numbers of runs beside their points; where two would overlap, that of the front comes first.

    Args:
        runs: the points of the runs, in their order.
        points: all points that a number must not hide.
    """
    found: list[Mark] = []
    taken: list[tuple[float, float, float, float]] = [
        (each.x - _BESIDE + 1, each.y - _BESIDE + 1, each.x + _BESIDE - 1, each.y + _BESIDE - 1) for each in points
    ]
    for i in sorted(range(len(runs)), key=lambda i: -_ORDER.index(runs[i].state)):
        x, y, text = runs[i].x, runs[i].y, str(i + 1)
        wide = _DIGIT * len(text)
        before, behind = x - _BESIDE - wide, x + _BESIDE
        # a front rises to the right, so its line leaves these two corners free
        for left, base in ((before, y - 3), (behind, y + 12), (behind, y - 3), (before, y + 12)):
            box = (left, base - _LABEL_HEIGHT + 2, left + wide, base)
            if left >= _LEFT and left + wide <= _WIDTH and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                found.append(Mark(left, base, text))
                break
    return found


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    """Whether two boxes (left, top, right, bottom) overlap."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]

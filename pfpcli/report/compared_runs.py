"""The page of `pfp compare`, and the same as Markdown and CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from pfpcli.records.compared_runs import DifferenceFound, FileCompared, RunCompared, RunsCompared
from pfpcli.records.measures import COSTS, NUMBER, SHARE, SHARED
from pfpcli.records.provenance import MadeFrom
from pfpcli.records.sources import How
from pfpcli.report import numbers
from pfpcli.report.measures import spelled
from pfpcli.report.page import Page

#: Headings of the costs.
HEADINGS = {"params": "parameters", "nonzeros": "nonzeros", "macs": "MACs", "size": "file", "latency": "latency"}
#: How a run was made from something -> (one run was, several were).
_HOW: dict[How, tuple[str, str]] = {
    "trained": ("was trained from the run", "were trained from the run"),
    "planned": ("was cut by the plan of the run", "were cut by the plan of the run"),
    "pruned": ("was pruned from the run", "were pruned from the run"),
    "swept": ("is a point of the sweep", "are points of the sweep"),
}
#: The parts of the differences, and how many of one part are shown unless everything is.
PARTS = {"settings": 20, "conditions": 8, "results": 8, "widths": 6}


def render(found: RunsCompared, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page.

       run             accuracy     drop  parameters    MACs      file   latency  front
    1  model-keep0.40    90.2 %   4.1 pp      59.2 k  11.0 M  239.6 kB  0.116 ms  all
    2  model-keep0.20    80.3 %  14.0 pp      29.5 k  6.10 M  120.1 kB  0.093 ms  all
       original          94.3 %        –     147.4 k  20.8 M  592.2 kB  0.118 ms

    settings   keep  0.4 (1), 0.2 (2)
    widths     7.0   48 (1), 24 (2)

    made from  1 2 are points of the sweep model-sweep
    """
    page = Page(width, unicode)
    rows = list(_numbered(found))
    head = rows[0][1:]
    page.table(rows, "<<" + ">" * (len(head) - 2) + "<", shrink=1, drop=_droppable(head))
    if len(found.runs) > 1 and found.quality:
        page.space()
        costs = ", ".join(found.common)
        page.paragraph("front: ", f"no other {compared_with(found)} has as much {found.quality} for as little {costs}")
    for remark in found.remarks:
        page.paragraph("warning: ", remark)
    for part, most in PARTS.items():
        _part(page, part, [each for each in found.differences if each.part == part], None if everything else most)
    if found.made_from:
        page.space()
    for number, each in enumerate(found.made_from):
        page.paragraph(f"{'' if number else 'made from':<10}  ", _descent(each))
    return page.text()


def markdown(found: RunsCompared) -> str:
    """Return the table and the differences in Markdown, fit for a comment on a pull request."""
    head, *rows = (row[1:] for row in _numbered(found))
    lines = [_row(head), "|---" + "|--:" * (len(head) - 2) + "|---|", *map(_row, rows), ""]
    lines += [f"Warning: {_escaped(remark)}  " for remark in found.remarks]
    lines += [f"{_escaped(_descent(each))}  " for each in found.made_from]
    others = [each for each in found.differences if each.part != "widths"]
    if others:
        names = [run.name for run in found.runs]
        lines += [_row(("differs in", *names)), "|---" * (len(names) + 1) + "|"]
        lines += [_row((each.name, *map(value_text, each.values))) for each in others]
    return "\n".join([*lines, ""])


def as_csv(found: RunsCompared) -> str:
    """Return a line for each run and each of its files of lower precision.

    A line has the name of the run, the precision, kind, status and metric, the measures in full, and the costs of the
    fronts.
    """
    names = list(dict.fromkeys(name for run in found.runs for name in run.measures))
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("run", "precision", "kind", "status", "metric", *names, "front"))
    for run in found.runs:
        for precision, each in zip(("float32", *(file.name for file in run.files)), run.in_all_precisions, strict=True):
            measures = (repr(each.measures[name]) if name in each.measures else "" for name in names)
            rows.writerow((run.name, precision, run.kind, run.status, run.metric, *measures, " ".join(each.front)))
    return out.getvalue()


def table(found: RunsCompared) -> list[tuple[str, ...]]:
    """Return the headings, a row for each run, and one for the original."""
    quality = found.quality or "quality"
    head = ("run", quality, "drop", *(HEADINGS[cost] for cost in found.costs), "front")
    rows = [
        (
            run.name,
            _quality(found, run),
            _drop(run, run.measures["drop"]),
            *(spelled(COSTS[cost].unit, run.measures.get(cost)) for cost in found.costs),
            _front(found, run),
        )
        for run in found.runs
    ]
    if found.original:
        original = found.original
        before = spelled(unit(found, found.runs[0]), original.get(quality))
        costs = (spelled(COSTS[cost].unit, original.get(cost)) for cost in found.costs)
        rows.append(("original", before, "–", *costs, ""))
    return [head, *rows]


def files(found: RunsCompared, run: RunCompared) -> list[tuple[str, ...]]:
    """Return a row for each file of a run in a lower precision, with what differs from the float file."""
    name = found.quality or run.metric
    return [
        (
            f"{run.name} {file.name}",
            spelled(unit(found, run), file.measures.get(name)),
            _drop(run, file.measures.get("drop")),
            *(_own_cost(file, cost) for cost in found.costs),
            " ".join(file.front) if len(found.runs) > 1 else "",
        )
        for file in run.files
    ]


def _own_cost(file: FileCompared, cost: str) -> str:
    """Return a cost of a file; "" for one that it shares with the float file, and for one that is not known."""
    return "" if cost in SHARED or cost not in file.measures else spelled(COSTS[cost].unit, file.measures[cost])


def compared_with(found: RunsCompared) -> str:
    """Return what the front compares: runs, and the files of lower precisions where there are some."""
    return "run or file" if any(run.files for run in found.runs) else "run"


def _numbered(found: RunsCompared) -> Iterator[tuple[str, ...]]:
    """Yield the rows of the table with the numbers of the runs before them, each run with its files below it."""
    head, *rows = table(found)
    yield "", *head
    for number, run in enumerate(found.runs):
        yield str(number + 1), *rows[number]
        yield from (("", *row) for row in files(found, run))
    yield from (("", *row) for row in rows[len(found.runs) :])


def unit(found: RunsCompared, run: RunCompared) -> str:
    """The unit of the quality: a metric of the user is a number, and the quality of a run is a share."""
    return SHARE if found.quality in ("", "agreement") or not run.own_metric else NUMBER


def _quality(found: RunsCompared, run: RunCompared) -> str:
    if not found.quality:
        return f"{run.metric} {spelled(NUMBER if run.own_metric else SHARE, run.measures[run.metric])}"
    return spelled(unit(found, run), run.measures.get(found.quality))


def _drop(run: RunCompared, drop: float | None) -> str:
    """How far the quality of a run or of one of its files fell, in its own unit."""
    if drop is None:
        return "–"
    return spelled(NUMBER, drop) if run.own_metric else numbers.points(-drop, 0.0).removeprefix("+")


def _front(found: RunsCompared, run: RunCompared) -> str:
    if run.status == "failed":
        return "FAILED"
    if len(found.runs) < 2 or not run.front:
        return ""
    return "all" if run.front == found.common else " ".join(run.front)


def _droppable(head: Sequence[str]) -> list[int]:
    """The columns that are left out first where the page is narrow, with the number of the run before the others."""
    return [1 + head.index(name) for name in ("MACs", "file", "drop") if name in head]


def _part(page: Page, part: str, differences: Sequence[DifferenceFound], most: int | None) -> None:
    """Write the differences of one part; the runs are numbered from 1."""
    if not differences:
        return
    page.space()
    ranked = sorted(differences, key=spread, reverse=True) if part == "widths" else list(differences)
    shown = ranked[:most]
    for number, each in enumerate(shown):
        lead = part if number == 0 else ""
        page.paragraph(f"{lead:<10}  {each.name}  ", ", ".join(by_value(each)))
    if len(ranked) > len(shown):
        page.line(" " * 12 + "… ", f"{len(ranked) - len(shown)} more: --all")


def came_from(made_from: MadeFrom) -> str:
    """Return what stands between the runs and what they were made from."""
    return _HOW[made_from.how][len(made_from.made) > 1]


def _descent(made_from: MadeFrom) -> str:
    """Return which runs were made from what; a run that is compared has its number before its name."""
    number = "" if made_from.run is None else f"{made_from.run} "
    return f"{' '.join(map(str, made_from.made))} {came_from(made_from)} {number}{made_from.name}"


def spread(difference: DifferenceFound) -> float:
    """How far apart the widths of a group are, relative to the largest one."""
    smallest, largest = min(difference.values), max(difference.values)
    return 1 - float(smallest / max(1, largest))


def by_value(difference: DifferenceFound) -> Iterator[str]:
    """Yield each value with the numbers of its runs: `0.4 (1 3)`."""
    texts = [value_text(value) for value in difference.values]
    for text in dict.fromkeys(texts):
        yield f"{text} ({' '.join(str(i) for i, each in enumerate(texts, 1) if each == text)})"


def value_text(value: Any) -> str:
    """Return a value of a setting, a condition or a result as text."""
    if value is None:
        return "–"
    if isinstance(value, list):
        return ",".join(map(value_text, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(cell: str) -> str:
    """Return text that stands for itself in a table: names come from files and folders."""
    for character in "\\`|<>*_[]":
        cell = cell.replace(character, f"\\{character}")
    return " ".join(cell.split())

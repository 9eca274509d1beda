"""The page of several runs: their quality against their costs, their table, what differs, and what came from what."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from pfpcli._version import __version__
from pfpcli.records.compared_runs import DifferenceFound, RunsCompared
from pfpcli.records.provenance import MadeFrom
from pfpcli.report.compared_runs import PARTS, by_value, came_from, compared_with, files, spread, table, value_text
from pfpcli.report.html.frame import fill
from pfpcli.report.html.scatter import FILE_MARKS, MARKS, scatters
from pfpcli.report.html.views import Cell, Chip, Column, Descent, Link, Row, Table
from pfpcli.report.parts import plural

#: Up to so many runs, each has a column in the tables of what differs.
_SIDE_BY_SIDE = 6
#: Up to so many runs, a sentence names them; of more it gives the number.
_NAMED = 6


def render(found: RunsCompared, links: Sequence[str]) -> str:
    """Return the page of several runs as HTML.

    Args:
        found: the comparison.
        links: for each run, the address of its page relative to this one, or "".
    """
    named = [
        Link(f"{number} {run.name}", to) for number, (run, to) in enumerate(zip(found.runs, links, strict=True), 1)
    ]
    drawn = scatters(found, links)
    precisions = {file.name for run in found.runs for file in run.files}
    return fill(
        "runs.html",
        pfp_version=__version__,
        sentence=headline(found),
        chips=list(_chips(found)),
        quality=found.quality,
        scatters=drawn,
        marks=MARKS,
        file_marks={name: mark for name, mark in FILE_MARKS.items() if name in precisions},
        compared_with=compared_with(found),
        has_original=any(point.state == "original" for each in drawn for point in each.points),
        runs=_runs(found, links),
        has_links=any(links),
        differences=[(part, each) for part in PARTS if (each := _differences(found, part, named))],
        descents=[_descent(each, named) for each in found.made_from],
        others=_others(found),
    )


def headline(found: RunsCompared) -> str:
    """Return `3 runs of model.pt: 2 are on the front of a cost (keep0.8, keep0.4)`."""
    of = ", ".join(dict.fromkeys(run.model for run in found.runs))
    start = f"{plural(len(found.runs), 'run')} of {of}"
    if not _is_front(found):
        return start
    front = [run.name for run in found.runs if any(each.front for each in run.in_all_precisions)]
    if len(front) == len(found.runs):
        return f"{start}: all are on the front of a cost"
    names = f" ({', '.join(front)})" if 0 < len(front) <= _NAMED else ""
    return f"{start}: {len(front) or 'none'} {'is' if len(front) == 1 else 'are'} on the front of a cost{names}"


def _is_front(found: RunsCompared) -> bool:
    """Whether the runs have a front."""
    return len(found.runs) > 1 and bool(found.quality) and bool(found.common)


def _chips(found: RunsCompared) -> Iterator[Chip]:
    failed = [run.name for run in found.runs if run.status == "failed"]
    if failed:
        yield Chip("bad", f"{len(failed)} failed", ", ".join(failed[:_NAMED]) + (", …" if len(failed) > _NAMED else ""))
    for remark in found.remarks:
        yield Chip("plain", "warning", remark)


def _runs(found: RunsCompared, links: Sequence[str]) -> Table:
    """Return the table of `pfp compare`; the original stays below it."""
    head, *rows = table(found)
    originals = rows[len(found.runs) :]
    columns = [Column("no.", True), *(Column(name, 0 < i < len(head) - 1) for i, name in enumerate(head))]
    made = []
    for number, (run, link) in enumerate(zip(found.runs, links, strict=True), 1):
        name, *figures, front = rows[number - 1]
        orders = (run.measures.get(measure) for measure in (found.quality, "drop", *found.costs))
        cells = [Cell(text, order) for text, order in zip(figures, orders, strict=True)]
        made.append(Row([Cell(str(number), number), Cell(name, link=link), *cells, Cell(front)], not run.front))
        for file, row in zip(run.files, files(found, run), strict=True):
            orders = (file.measures.get(measure) for measure in (found.quality, "drop", *found.costs))
            cells = [Cell(text, order) for text, order in zip(row[1:-1], orders, strict=True)]
            made.append(Row([Cell("", number), Cell(row[0], link=link), *cells, Cell(row[-1])], not file.front))
    totals = [Cell(text) for row in originals for text in ("", *row)]
    return Table("runs", columns, made, totals, hide="hide runs that are on no front")


def _differences(found: RunsCompared, part: str, named: Sequence[Link]) -> Table | None:
    """Return what differs in one part; None where nothing does."""
    each = [difference for difference in found.differences if difference.part == part]
    if not each:
        return None
    is_side_by_side = len(named) <= _SIDE_BY_SIDE
    if part == "widths":
        each.sort(key=spread, reverse=True)
        columns, rows = _widths(each, named) if is_side_by_side else _extremes(each)
    elif is_side_by_side:
        columns = [Column(link.text) for link in named]
        rows = [[Cell(value_text(value)) for value in difference.values] for difference in each]
    else:
        columns = [Column("values, each with the numbers of its runs", is_prose=True)]
        rows = [[Cell(", ".join(by_value(difference)))] for difference in each]
    made = [Row([Cell(difference.name), *cells]) for difference, cells in zip(each, rows, strict=True)]
    return Table(f"differing-{part}", [Column("group" if part == "widths" else "name"), *columns], made)


def _widths(differences: Sequence[DifferenceFound], named: Sequence[Link]) -> tuple[list[Column], list[list[Cell]]]:
    """Return a column for each run; the bar of a width is relative to the largest one of its group."""
    rows = [
        [Cell(str(value), value, 100 * value / max(1, *each.values)) for value in each.values] for each in differences
    ]
    return [Column(link.text, True) for link in named], rows


def _extremes(differences: Sequence[DifferenceFound]) -> tuple[list[Column], list[list[Cell]]]:
    """Return the smallest and the largest width of each group, with the numbers of the runs that have it."""
    rows = []
    for each in differences:
        row = []
        for value in (min(each.values), max(each.values)):
            numbers = [str(number) for number, other in enumerate(each.values, 1) if other == value]
            row += [Cell(str(value), value), Cell(" ".join(numbers))]
        rows.append(row)
    return [Column("narrowest", True), Column("in runs"), Column("widest", True), Column("in runs")], rows


def _descent(made_from: MadeFrom, named: Sequence[Link]) -> Descent:
    source = Link(made_from.name, "") if made_from.run is None else named[made_from.run - 1]
    return Descent([named[number - 1] for number in made_from.made], came_from(made_from), source)


def _others(found: RunsCompared) -> str:
    """Return a sentence on the runs whose records name nothing that they were made from."""
    told = {number for each in found.made_from for number in each.made}
    others = [run for number, run in enumerate(found.runs, 1) if number not in told]
    if not others:
        return ""
    models = ", ".join(dict.fromkeys(run.model for run in others))
    whose = f"The records of {len(others)} runs name" if len(others) > 1 else "The record of 1 run names"
    if len(others) == len(found.runs):
        whose = "The records name"
    return f"{whose} nothing but the model ({models})."

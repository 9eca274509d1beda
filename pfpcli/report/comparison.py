"""The files of `pfp compare-criteria`: a table for a terminal, the same table in Markdown, and a chart."""

from __future__ import annotations

from collections.abc import Callable

from pfpcli.records.comparison import Comparison
from pfpcli.records.folders import COMPARISON, COMPARISON_CHART, COMPARISON_TABLE
from pfpcli.report import chart, numbers
from pfpcli.report.page import Page

_MEASURES = {"params": "parameters", "macs": "MACs"}


def render(found: Comparison, *, width: int = 80, unicode: bool = True) -> str:
    """Return the page of `pfp compare-criteria`: a row for each criterion, a column for each budget.

    model.pt: accuracy on 186 held-out images, 95.2 % before

      keep of the MACs  80.0 %  60.0 %
      MACs kept         80.0 %  60.1 %
      pfp               79.0 %  68.8 %
      l1                74.7 %  60.2 %
    """
    page = Page(width, unicode)
    before = f", {numbers.percent(found.before)} before" if found.metric == "accuracy" else ""
    page.paragraph("", f"{found.model['name']}: {found.metric} on {found.n} {found.source}{before}", 0)
    page.space()
    rows = _table(found)
    page.table(rows, "<" + ">" * (len(rows[0]) - 1))
    for name, reason in found.skipped.items():
        page.paragraph(f"{name}: ", reason)
    return page.text()


def markdown(found: Comparison) -> str:
    """Return the same table in Markdown."""
    head, *rows = _table(found)
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, ""])


def svg(found: Comparison) -> str:
    """Return a chart of the quality against the MACs that are kept, a line for each criterion."""
    data = [
        chart.Line(name, sorted((100 * point.macs, 100 * point.quality) for point in points))
        for name, points in found.by_criterion().items()
    ]
    title = f"{found.model['name']}: {found.metric} by criterion, nothing trained, {found.n} images"
    return chart.lines(title, "MACs kept, %", f"{found.metric}, %", data)


def _table(found: Comparison) -> list[tuple[str, ...]]:
    """Return the headings, the MACs kept at each budget (a range over the criteria), and a row for each criterion."""
    by = found.by_criterion()
    keeps = list(dict.fromkeys(point.keep for point in found.points))
    kept = {keep: [p.macs for p in found.points if p.keep == keep] for keep in keeps}
    rows = [(f"keep of the {_MEASURES[found.of]}", *map(numbers.share, keeps), "scored in")]
    rows.append(("MACs kept", *(_range(kept[keep]) for keep in keeps), ""))
    for name, points in by.items():
        of = {point.keep: point for point in points}
        cells = [numbers.share(of[keep].quality) if keep in of else "–" for keep in keeps]
        rows.append((name, *cells, numbers.seconds(points[0].seconds)))
    return rows


def _range(values: list[float]) -> str:
    low, high = numbers.share(min(values)), numbers.share(max(values))
    return low if low == high else f"{low.removesuffix(' %')}–{high}"


#: Name of a file of a comparison -> the function that returns its text.
FILES: dict[str, Callable[[Comparison], str]] = {
    COMPARISON: Comparison.json,
    COMPARISON_TABLE: markdown,
    COMPARISON_CHART: svg,
}

"""The table of `pfp sweep`."""

from __future__ import annotations

from pfpcli.measures import MEASURES
from pfpcli.records.parts import Cost
from pfpcli.records.sweep import Sweep
from pfpcli.report import numbers, parts
from pfpcli.report.page import Page


def render(found: Sweep, *, width: int = 80, unicode: bool = True) -> str:
    """Return the table of a sweep: a row for each run, and one for the original.

    model.pt: accuracy on 122 held-out images

      run         kept  parameters    MACs      file   latency  accuracy
      original  100.0 %    147.4 k  20.8 M  592.2 kB  0.178 ms    94.3 %
      keep0.6    60.2 %     88.7 k  16.2 M  357.6 kB  0.140 ms    93.4 %  front
      keep0.4    40.1 %     59.2 k  11.0 M  239.6 kB  0.116 ms    90.2 %  front
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", f"{found.model['name']}: {found.metric} on {found.n} {found.source}", 0)
    page.space()
    head = ("run", "kept", "parameters", "MACs", "file", "latency", found.metric, "")
    rows = [_row("original", 1.0, found.before, found.quality, "", found)]
    for point in found.points:
        mark = "FAILED" if point.status == "failed" else "front" if point.front else ""
        rows.append(_row(point.run, point.achieved, point.after, point.quality, mark, found))
    page.table([head, *rows], "<>>>>>><", shrink=0, drop=(4, 3))
    page.paragraph(
        "front: ", f"no other run keeps as little of the {MEASURES[found.of].noun} with as much {found.metric}"
    )
    return page.text()


def _row(name: str, kept: float, cost: Cost, quality: float, mark: str, found: Sweep) -> tuple[str, ...]:
    return (
        name,
        numbers.share(kept),
        numbers.count(cost.params),
        numbers.count(cost.macs),
        "–" if cost.file_bytes is None else numbers.size(cost.file_bytes),
        "–" if cost.latency_ms is None else f"{numbers.milliseconds(cost.latency_ms)} ms",
        f"{quality:.4g}" if found.own_metric else numbers.share(quality),
        mark,
    )

"""Why these channels: the sorted scores of each group with its cut line, its curve, and the errors of layers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from math import log10

from pfpcli.records.details import Details, GroupCurve, GroupScores
from pfpcli.records.runs import Run
from pfpcli.report import certificate
from pfpcli.report.html.views import Cell, Column, GroupView, Row, Table

#: Size of a drawing in pixels, and the space around a curve.
WIDTH, HEIGHT = 200, 44
_MARGIN = 5
#: The most columns of a strip; a column shows the mean of its scores.
_COLUMNS = 40
#: Losses are drawn on a logarithmic scale; smaller ones than this are drawn as this.
_TINY = 1e-9
#: The losses of a curve by the name of a plan; the plans that have none show the first.
_LOSSES = {
    "distance": "distance of the outputs from the original's",
    "divergence": "divergence of the outputs from the original's",
    "error": "error of the refitted layers",
}


def shown_loss(run: Run) -> str:
    """Return the name of the loss that the best plan minimised, or of the first one."""
    plans = run.scoring.get("plans") or [{}]
    name = str(plans[0].get("name", run.scoring.get("allocate", "")))
    return name if name in _LOSSES else next(iter(_LOSSES))


def meaning(run: Run) -> str:
    """Return what the losses of the curves are."""
    return _LOSSES[shown_loss(run)]


def groups(run: Run, details: Details) -> list[GroupView]:
    """Return the groups that could lose channels, in the order of the network."""
    curves = {curve.name: curve for curve in details.curves}
    loss = shown_loss(run)
    every = [value for curve in details.curves for value in curve.losses.get(loss, [])]
    bounds = (_log(min(every)), _log(max(every))) if every else (0.0, 1.0)
    sizes = {group.name: (group.size, group.kept) for group in run.groups}
    return [_group(each, sizes.get(each.name), curves.get(each.name), loss, bounds) for each in details.groups]


def _group(
    found: GroupScores,
    size: tuple[int, int] | None,
    curve: GroupCurve | None,
    loss: str,
    bounds: tuple[float, float],
) -> GroupView:
    before, after = size or (len(found.scores), len(found.scores) - len(found.dropped))
    dropped = set(found.dropped)
    ranked = sorted(range(len(found.scores)), key=lambda unit: -found.scores[unit])
    columns = list(_columns([(found.scores[unit], unit in dropped) for unit in ranked]))
    highest = max((score for score, _ in columns), default=0.0) or 1.0
    lowest = min(0.0, *(score for score, _ in columns)) if columns else 0.0
    view = GroupView(
        found.name,
        f"{before} channels, all kept" if before == after else f"{before} → {after} channels",
        _areas(columns, lowest, highest, is_dropped=False),
        _areas(columns, lowest, highest, is_dropped=True),
        _cut(ranked, dropped),
        f"{max(found.scores, default=0.0):.3g}",
    )
    losses = [] if curve is None else curve.losses.get(loss, [])
    return view if curve is None or not losses else _with_curve(view, curve, losses, after / before, bounds)


def _cut(ranked: Sequence[int], dropped: set[int]) -> float | None:
    """Return the column of the cut line; None where the dropped units are not those with the lowest scores."""
    kept = len(ranked) - len(dropped)
    return WIDTH * kept / len(ranked) if dropped and set(ranked[kept:]) == dropped else None


def _columns(scores: Sequence[tuple[float, bool]]) -> Iterator[tuple[float, bool]]:
    """Yield (mean score, whether most units are dropped) of at most `_COLUMNS` columns."""
    count = min(len(scores), _COLUMNS)
    for i in range(count):
        part = scores[i * len(scores) // count : (i + 1) * len(scores) // count]
        yield sum(score for score, _ in part) / len(part), 2 * sum(is_dropped for _, is_dropped in part) > len(part)


def _areas(columns: Sequence[tuple[float, bool]], lowest: float, highest: float, *, is_dropped: bool) -> str:
    """Return the area below those columns that are dropped, or below the others, as a path."""
    shapes, x = [], 0
    edges = [round(WIDTH * i / len(columns)) for i in range(len(columns) + 1)]
    for state, run in groupby(columns, key=lambda column: column[1]):
        heights = [HEIGHT * (1 - (score - lowest) / ((highest - lowest) or 1.0)) for score, _ in run]
        if state == is_dropped:
            steps = "".join(f"V{height:.0f}H{edges[x + i + 1]}" for i, height in enumerate(heights))
            shapes.append(f"M{edges[x]} {HEIGHT}{steps}V{HEIGHT}Z")
        x += len(heights)
    return "".join(shapes)


def _with_curve(
    view: GroupView, curve: GroupCurve, losses: Sequence[float], chosen: float, bounds: tuple[float, float]
) -> GroupView:
    """Return the view with its curve: the share of channels kept to the right, the logarithm of the loss upwards."""
    low, high = bounds

    def x(share: float) -> float:
        return WIDTH * share

    def y(loss: float) -> float:
        return HEIGHT - _MARGIN - (HEIGHT - 2 * _MARGIN) * (_log(loss) - low) / ((high - low) or 1.0)

    pairs = list(zip(curve.kept, losses, strict=True))
    path = "M" + "L".join(f"{x(kept / curve.positions):.0f} {y(value):.0f}" for kept, value in pairs)
    said = ", ".join(f"{kept}: {value:.2g}" for kept, value in pairs)
    return replace(view, curve=path, losses=f"channels kept: loss — {said}", chosen=x(chosen))


def _log(loss: float) -> float:
    return log10(max(loss, _TINY))


def errors(run: Run) -> Table | None:
    """Return the certificate as a table; None where no layer reads fewer channels."""
    if not run.certificate.layers:
        return None
    heading, *rows = certificate.rows(run.certificate)
    columns = [Column(name, i > 0) for i, name in enumerate(heading)]
    orders = [
        (None, row.kept / row.size, row.total, row.draws, row.epsilon, row.bound, row.measured)
        for row in sorted(run.certificate.layers, key=lambda row: -(row.measured or 0.0))
    ]
    cells = [
        Row([Cell(text, order) for text, order in zip(row, by, strict=True)])
        for row, by in zip(rows, orders, strict=True)
    ]
    return Table("errors", columns, cells, (), certificate.remarks(run))

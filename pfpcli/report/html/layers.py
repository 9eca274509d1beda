"""The table of layers: what became of each of them, and how much of the savings it brought."""

from __future__ import annotations

from pfpcli.amounts import COUNTED
from pfpcli.records.parts import LayerRow, SparseLayer
from pfpcli.records.runs import AnyRun, Run, SparseRun
from pfpcli.report import numbers, precision
from pfpcli.report.html.views import Cell, Column, Row, Table
from pfpcli.report.run_layers import FIELDS
from pfpcli.report.unlucky_widths import remark

_REMARK = (
    "remark: onnxruntime on a CPU computes convolutions in a layout of blocks of channels; a width that leaves this "
    "layout can be slower than the next larger one"
)


def table(run: AnyRun) -> Table | None:
    """Return the table of layers; None for a run that changed no width and no zero."""
    if isinstance(run, Run) and run.layers:
        return _cut(run)
    return _sparse(run) if isinstance(run, SparseRun) and run.layers else None


def _cut(run: Run) -> Table:
    measure = FIELDS[run.requested["of"]]
    total = getattr(run.before, measure) - getattr(run.after, measure)
    saved = [_saved(layer, measure) / total if total else 0.0 for layer in run.layers]
    found = [remark(layer) for layer in run.layers]
    columns = [
        Column("layer"),
        Column("op"),
        Column("in", True),
        Column("out", True),
        Column("parameters", True),
        Column("MACs", True),
        Column("kept", True),
        Column("saved", True),
        *([Column("remark", is_prose=True)] if any(found) else []),
    ]
    rows = [
        Row(
            [
                Cell(layer.name),
                Cell(_op(layer)),
                _arrow(layer.channels_in, str),
                _arrow(layer.channels_out, str),
                _arrow(layer.params, numbers.count),
                _arrow(layer.macs, numbers.count),
                _kept(getattr(layer, measure)),
                Cell(numbers.share(share) if share else "–", share, 100 * max(share, 0.0)),
                *([Cell(text)] if any(found) else []),
            ],
            layer.params[0] == layer.params[1] and layer.macs[0] == layer.macs[1],
        )
        for layer, share, text in zip(run.layers, saved, found, strict=True)
    ]
    before, after = run.before, run.after
    totals = [
        Cell("network"),
        *[Cell("")] * 3,
        _arrow((before.params, after.params), numbers.count),
        _arrow((before.macs, after.macs), numbers.count),
        _kept((getattr(before, measure), getattr(after, measure))),
        Cell("100.0 %" if total else "–"),
        *([Cell("")] if any(found) else []),
    ]
    of = COUNTED[measure].noun
    explained = f"kept: share of the layer's {of} that is left; saved: its share of the {of} that the network lost"
    return Table("layers", columns, rows, totals, [explained, *([_REMARK] if any(found) else [])])


def precisions(run: Run) -> Table | None:
    """Return the files of several precisions side by side; None for a run in float32 alone."""
    if len(run.precisions) < 2:
        return None
    heading, *rows = precision.rows(run) or [("precision",)]
    unnamed = iter(("speed", "change"))
    columns = [Column(name or next(unnamed), 0 < i < len(heading) - 1) for i, name in enumerate(heading)]
    remarks = precision.remarks(run, everything=True)
    return Table("precisions", columns, [Row([Cell(text) for text in row]) for row in rows], (), remarks)


def _saved(layer: LayerRow, measure: str) -> int:
    before, after = getattr(layer, measure)
    return int(before - after)


def _op(layer: LayerRow) -> str:
    groups = layer.groups[0]
    if groups == 1:
        return layer.op
    return f"{layer.op}, depthwise" if groups == layer.channels_in[0] else f"{layer.op}, {groups} groups"


def _arrow(pair: tuple[int, int], spelled: numbers.Spelling) -> Cell:
    """Return `64 → 21`, or `64` for what stays; sorted by the result."""
    before, after = pair
    return Cell(spelled(after) if before == after else f"{spelled(before)} → {spelled(after)}", after)


def _kept(pair: tuple[int, int]) -> Cell:
    before, after = pair
    return Cell(numbers.share(after / before), after / before, 100 * after / before) if before else Cell("–", 1.0)


def _sparse(run: SparseRun) -> Table:
    columns = [
        Column("layer"),
        Column("weights", True),
        Column("nonzeros", True),
        Column("kept", True),
        Column("error bound", True),
        Column("measured error", True),
    ]
    rows = [
        Row(
            [
                Cell(layer.name),
                Cell(numbers.count(layer.weights), layer.weights),
                _arrow(layer.nonzeros, numbers.count),
                _kept(layer.nonzeros),
                _bound(layer),
                Cell(f"{layer.error:.3g}", layer.error),
            ],
            layer.nonzeros[0] == layer.nonzeros[1],
        )
        for layer in run.layers
    ]
    remarks = [
        "errors: the largest of any output, relative to |W| |a|; a bound of 1 or more says nothing (vacuous)",
        f"measured: on {run.quality.n} {run.quality.source}",
    ]
    return Table("layers", columns, rows, (), remarks)


def _bound(layer: SparseLayer) -> Cell:
    if layer.bound is None:
        return Cell("not known", float("inf"))
    return Cell(f"{layer.bound:.3g} vacuous" if layer.bound >= 1 else f"{layer.bound:.3g}", layer.bound)

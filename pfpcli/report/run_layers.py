"""The table of layers in the reports on a run of `pfp compress` and on a plan."""

from __future__ import annotations

from collections.abc import Sequence

from pfpcli.records.parts import LayerRow
from pfpcli.records.planned import PlannedNetwork
from pfpcli.records.runs import Run
from pfpcli.report import numbers
from pfpcli.report.page import Page

#: Number of layers that `largest` shows.
LARGEST = 4

#: Field of `LayerRow` and `Cost` -> heading of its column.
_HEADINGS = {"params": "params", "macs": "MACs"}
#: What a budget measures -> the field that tells where it was saved.
FIELDS = {"params": "params", "macs": "macs", "size": "params", "latency": "macs"}


def largest(page: Page, run: Run | PlannedNetwork) -> int:
    """Write the layers that saved most of what the budget measures.

    Returns:
        Number of the other layers that saved something.
    """
    measure = FIELDS[run.requested["of"]]
    smaller = [layer for layer in _ranked(run, measure) if _saved(layer, measure) > 0]
    _table(page, run, smaller[:LARGEST], measure)
    return max(len(smaller) - LARGEST, 0)


def all_layers(page: Page, run: Run | PlannedNetwork) -> None:
    """Write all layers with their parameters, after their MACs where the budget measures MACs."""
    for measure in dict.fromkeys([FIELDS[run.requested["of"]], "params"]):
        _table(page, run, _ranked(run, measure), measure)


def _table(page: Page, run: Run | PlannedNetwork, shown: Sequence[LayerRow], measure: str) -> None:
    """Write one row for each layer.

    layer           op           in      out            params   saved
    layer3.2.conv2  conv2d  64 → 21  64 → 64  36.9 k → 12.1 k  15.1 %
    """
    page.space()
    if not shown:
        page.paragraph("", "no layer got smaller")
        return
    total = getattr(run.before, measure) - getattr(run.after, measure)
    columns = [
        [layer.name for layer in shown],
        [layer.op for layer in shown],
        _arrows([layer.channels_in for layer in shown], str),
        _arrows([layer.channels_out for layer in shown], str),
        _arrows([getattr(layer, measure) for layer in shown], numbers.count),
        [numbers.share(_saved(layer, measure) / total) if total else "–" for layer in shown],
    ]
    rows = [("layer", "op", "in", "out", _HEADINGS[measure], "saved"), *zip(*columns, strict=True)]
    page.table(rows, "<<>>>>", shrink=0, drop=(1, 2))


def _ranked(run: Run | PlannedNetwork, measure: str) -> list[LayerRow]:
    """Return the layers, those first that saved most."""
    return sorted(run.layers, key=lambda layer: -_saved(layer, measure))


def _saved(layer: LayerRow, measure: str) -> int:
    before, after = getattr(layer, measure)
    return int(before - after)


def _arrows(pairs: list[tuple[int, int]], spelled: numbers.Spelling) -> list[str]:
    """Return `64 → 21` for each pair, with the arrows in one column."""
    old, new = ([spelled(number) for number in side] for side in zip(*pairs, strict=True))
    left, right = max(map(len, old)), max(map(len, new))
    return [f"{a:>{left}} → {b:>{right}}" for a, b in zip(old, new, strict=True)]

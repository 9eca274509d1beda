"""The skeleton of a network: one bar for each layer, as high as the layer is wide, before and after."""

from __future__ import annotations

from collections.abc import Sequence

from pfpcli.records.parts import LayerRow
from pfpcli.records.runs import AnyRun, Run
from pfpcli.report.html.views import Bar, Mark, Skeleton
from pfpcli.report.unlucky_widths import remark

_WIDTH, _HEIGHT = 960, 190
_LEFT, _RIGHT, _TOP = 44, 8, 20
#: The widest bar, and the part of a layer's space that its bar takes.
_WIDEST, _FILLED = 34.0, 0.72
#: With so many layers there is room for their names, and the longest name.
_NAMED, _LONGEST = 40, 22
#: Pixels for a letter of a name that stands upright.
_LETTER = 5.6


def skeleton(run: AnyRun) -> Skeleton | None:
    """Return the widths of all layers; None for a run whose record has none."""
    if not isinstance(run, Run) or not run.layers:
        return None
    layers = run.layers
    space = min(_WIDEST, (_WIDTH - _LEFT - _RIGHT) / len(layers))
    most = max(max(layer.channels_out) for layer in layers) or 1
    base = _TOP + _HEIGHT
    columns = [_LEFT + space * i for i in range(len(layers))]
    bar = space * _FILLED

    def path(which: int) -> str:
        """Return the bars of the original (0) or of the result (1)."""
        shapes = []
        for x, layer in zip(columns, layers, strict=True):
            height = _HEIGHT * layer.channels_out[which] / most
            shapes.append(f"M{x:.1f} {base}v{-height:.1f}h{bar:.1f}v{height:.1f}z")
        return "".join(shapes)

    unlucky = [
        Mark(x + bar / 2, base - _HEIGHT * max(layer.channels_out) / most - 4, remark(layer))
        for x, layer in zip(columns, layers, strict=True)
        if remark(layer)
    ]
    names = _names(layers, columns, bar, base)
    below = 8 + _LETTER * max(len(mark.text) for mark in names) if len(layers) <= _NAMED else 22
    return Skeleton(
        width=round(columns[-1] + space + _RIGHT),
        height=round(base + below),
        base=base,
        before=path(0),
        after=path(1),
        bars=[Bar(x, _TOP, space, _HEIGHT, _title(layer)) for x, layer in zip(columns, layers, strict=True)],
        unlucky=unlucky,
        names=names,
        is_dense=len(layers) > _NAMED,
        lines=[Mark(_LEFT, base - _HEIGHT * width / most, str(width)) for width in sorted({most, most // 2})],
    )


def _names(layers: Sequence[LayerRow], columns: Sequence[float], bar: float, base: int) -> list[Mark]:
    """Return the names below the bars; of many layers the number of every tenth or so."""
    if len(layers) <= _NAMED:
        return [
            Mark(x + bar / 2 + 3, base + 6, layer.name if len(layer.name) <= _LONGEST else f"…{layer.name[-_LONGEST:]}")
            for x, layer in zip(columns, layers, strict=True)
        ]
    step = next(each for each in (10, 20, 50, 100, 200, 500, 1000) if len(layers) / each <= 20 or each == 1000)
    return [Mark(columns[i - 1] + bar / 2, base + 16, str(i)) for i in (1, *range(step, len(layers) + 1, step))]


def _title(layer: LayerRow) -> str:
    before, after = layer.channels_out
    widths = f"{before} channels" if before == after else f"{before} → {after} channels"
    return ", ".join(filter(None, (f"{layer.name} ({layer.op}): {widths}", remark(layer))))

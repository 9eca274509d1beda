"""Line charts as SVG text, without a library.

The lines differ in colour and in mark, so that a reader with any colour vision can tell them apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

#: Colours that can be told apart with any colour vision, on white and on black. Source: Okabe and Ito.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
#: Marks around (0, 0), as SVG paths; lines of the same colour have different marks.
MARKS = ("M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", "M-4 -4H4V4H-4Z", "M0 -5L5 4H-5Z", "M0 -5L5 0L0 5L-5 0Z")

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 40, 52
#: Distance in pixels between the names at the ends of lines.
_NAME_HEIGHT = 15
#: Approximate width in pixels of a letter of such a name, and of everything before the name.
_LETTER, _BEFORE_NAME = 6.4, 40


@dataclass(frozen=True)
class Line:
    """A line with a name through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class _Scale:
    """The place of the data on the chart.

    Attributes:
        xs, ys: the ticks of the two axes.
        right, bottom: the ends of the axes in pixels.
    """

    xs: list[float]
    ys: list[float]
    right: int
    bottom: int

    def x(self, value: float) -> float:
        """Return the column of a value in pixels."""
        return _LEFT + (value - self.xs[0]) / (self.xs[-1] - self.xs[0]) * (self.right - _LEFT)

    def y(self, value: float) -> float:
        """Return the row of a value in pixels."""
        return self.bottom - (value - self.ys[0]) / (self.ys[-1] - self.ys[0]) * (self.bottom - _TOP)


def lines(title: str, x: str, y: str, data: Sequence[Line]) -> str:
    """Return a chart of lines as an SVG document; each line has its name at its right end.

    Args:
        title: what the chart shows, with the conditions.
        x: name of the horizontal axis, with its unit.
        y: name of the vertical axis, with its unit.
        data: the lines, in the units of the axes.
    """
    scale = _Scale(
        xs=ticks([px for line in data for px, _ in line.points]),
        ys=ticks([py for line in data for _, py in line.points]),
        right=_WIDTH - max(_RIGHT, round(_BEFORE_NAME + _LETTER * max(len(line.name) for line in data))),
        bottom=_HEIGHT - _BOTTOM,
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        "<style>svg{background:#fff;color:#222}@media(prefers-color-scheme:dark){svg{background:#1b1b1b;color:#ddd}}"
        "</style>",
        f'<text x="{_LEFT}" y="22" font-size="14" fill="currentColor">{escape(title)}</text>',
        *_axes(x, y, scale),
    ]
    heights = _apart([scale.y(line.points[-1][1]) for line in data])
    for number, (line, height) in enumerate(zip(data, heights, strict=True)):
        parts += _line(line, height, scale, COLORS[number % len(COLORS)], MARKS[number % len(MARKS)])
    return "\n".join([*parts, "</svg>", ""])


def _axes(x: str, y: str, scale: _Scale) -> list[str]:
    """Return the ticks, the grid and the names of the axes."""
    parts = [_text(scale.x(value), scale.bottom + 18, tick_text(value, scale.xs), "middle") for value in scale.xs]
    for value in scale.ys:
        row = scale.y(value)
        parts.append(
            f'<path d="M{_LEFT} {row:.1f}H{scale.right}" stroke="currentColor" stroke-opacity=".15" fill="none"/>'
        )
        parts.append(_text(_LEFT - 8, row + 4, tick_text(value, scale.ys), "end"))
    parts.append(_text((_LEFT + scale.right) / 2, _HEIGHT - 12, x, "middle"))
    middle = (_TOP + scale.bottom) / 2
    parts.append(
        f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle" fill="currentColor">'
        f"{escape(y)}</text>"
    )
    return parts


def _line(line: Line, height: float, scale: _Scale, color: str, mark: str) -> list[str]:
    """Return a line with its marks, and its name at a height."""
    places = [(scale.x(px), scale.y(py)) for px, py in line.points]
    path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
    end, right = places[-1], scale.right
    return [
        f'<path d="M{path}" stroke="{color}" stroke-width="1.8" fill="none"/>',
        *(f'<path d="{mark}" transform="translate({a:.1f} {b:.1f})" fill="{color}"/>' for a, b in places),
        f'<path d="M{end[0] + 6:.1f} {end[1]:.1f}L{right + 14} {height:.1f}" stroke="{color}" '
        'stroke-opacity=".5" fill="none"/>',
        f'<path d="{mark}" transform="translate({right + 20} {height:.1f})" fill="{color}"/>',
        _text(right + 30, height + 4, line.name, "start"),
    ]


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'


def ticks(values: Sequence[float]) -> list[float]:
    """Return about five round numbers that span the values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * i for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def tick_text(value: float, among: Sequence[float]) -> str:
    """Return a tick with as many decimals as tell it from the others."""
    decimals = max(0, -floor(log10(among[1] - among[0]) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−")


def _apart(heights: list[float]) -> list[float]:
    """Return heights at which names do not overlap, in the order of the given ones and as close to them as possible."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + _NAME_HEIGHT)
    beyond = max(0.0, moved[order[-1]] - (_HEIGHT - _BOTTOM + 10)) if order else 0.0
    return [height - beyond for height in moved]

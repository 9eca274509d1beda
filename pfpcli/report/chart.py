"""Charts as SVG: text, no library and no network; colours that can be told apart, and marks that differ as well."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise
from math import ceil, floor, log10

#: Okabe and Ito's colours: told apart with any kind of colour vision, on white and on black.
COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
#: Marks around (0, 0), as paths; lines of the same colour have other marks.
MARKS = ("M-4 0A4 4 0 1 0 4 0A4 4 0 1 0 -4 0Z", "M-4 -4H4V4H-4Z", "M0 -5L5 4H-5Z", "M0 -5L5 0L0 5L-5 0Z")

_WIDTH, _HEIGHT = 720, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 150, 40, 52
#: Pixels between the names at the ends of lines.
_NAME_HEIGHT = 15
#: Pixels of a letter of such a name, about, and of what stands before the name.
_LETTER, _BEFORE_NAME = 6.4, 40


@dataclass(frozen=True)
class Line:
    """A named line through points (x, y)."""

    name: str
    points: Sequence[tuple[float, float]]


def lines(title: str, x: str, y: str, data: Sequence[Line]) -> str:
    """A chart of lines, each with its name at its right end, as an SVG document.

    Args:
        title: what it shows, with the conditions.
        x: what the axis below measures, with its unit.
        y: what the axis on the left measures.
        data: the lines; x and y are shown as they are.
    """
    xs = _ticks([px for line in data for px, _ in line.points])
    ys = _ticks([py for line in data for _, py in line.points])
    right = _WIDTH - max(_RIGHT, round(_BEFORE_NAME + _LETTER * max(len(line.name) for line in data)))
    bottom = _HEIGHT - _BOTTOM

    def across(value: float) -> float:
        return _LEFT + (value - xs[0]) / (xs[-1] - xs[0]) * (right - _LEFT)

    def up(value: float) -> float:
        return bottom - (value - ys[0]) / (ys[-1] - ys[0]) * (bottom - _TOP)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        "<style>svg{background:#fff;color:#222}@media(prefers-color-scheme:dark){svg{background:#1b1b1b;color:#ddd}}"
        "</style>",
        f'<text x="{_LEFT}" y="22" font-size="14" fill="currentColor">{escape(title)}</text>',
    ]
    for value in xs:
        parts.append(_text(across(value), bottom + 18, _number(value, xs), "middle"))
    for value in ys:
        parts.append(
            f'<path d="M{_LEFT} {up(value):.1f}H{right}" stroke="currentColor" stroke-opacity=".15" fill="none"/>'
        )
        parts.append(_text(_LEFT - 8, up(value) + 4, _number(value, ys), "end"))
    parts.append(_text((_LEFT + right) / 2, _HEIGHT - 12, x, "middle"))
    middle = (_TOP + bottom) / 2
    parts.append(
        f'<text transform="translate(16 {middle:.0f}) rotate(-90)" text-anchor="middle" fill="currentColor">'
        f"{escape(y)}</text>"
    )
    heights = _apart([up(line.points[-1][1]) for line in data])
    for i, (line, height) in enumerate(zip(data, heights, strict=True)):
        color, mark = COLORS[i % len(COLORS)], MARKS[i % len(MARKS)]
        places = [(across(px), up(py)) for px, py in line.points]
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in places)
        parts.append(f'<path d="M{path}" stroke="{color}" stroke-width="1.8" fill="none"/>')
        parts += [f'<path d="{mark}" transform="translate({a:.1f} {b:.1f})" fill="{color}"/>' for a, b in places]
        parts.append(
            f'<path d="M{places[-1][0] + 6:.1f} {places[-1][1]:.1f}L{right + 14} {height:.1f}" stroke="{color}" '
            'stroke-opacity=".5" fill="none"/>'
        )
        parts.append(f'<path d="{mark}" transform="translate({right + 20} {height:.1f})" fill="{color}"/>')
        parts.append(_text(right + 30, height + 4, line.name, "start"))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor">{escape(text)}</text>'


def _ticks(values: Sequence[float]) -> list[float]:
    """About five round numbers that span the values."""
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    rough = (high - low) / 4
    power = 10.0 ** floor(log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [step * i for i in range(floor(low / step + 1e-9), ceil(high / step - 1e-9) + 1)]


def _number(value: float, ticks: Sequence[float]) -> str:
    decimals = max(0, -floor(log10(ticks[1] - ticks[0]) + 1e-9))
    return f"{value:.{decimals}f}".replace("-", "−")


def _apart(heights: list[float]) -> list[float]:
    """Heights moved as far as names need to stand below each other, in the same order."""
    order = sorted(range(len(heights)), key=heights.__getitem__)
    moved = list(heights)
    for before, after in pairwise(order):
        moved[after] = max(moved[after], moved[before] + _NAME_HEIGHT)
    beyond = max(0.0, moved[order[-1]] - (_HEIGHT - _BOTTOM + 10)) if order else 0.0
    return [height - beyond for height in moved]

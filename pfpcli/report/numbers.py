"""Numbers as text: counts, sizes, fractions and times, for reports and for the progress of commands."""

from __future__ import annotations

from collections.abc import Callable
from math import floor, log10

#: A function of this module that spells one number.
Spelling = Callable[[float], str]


def count(value: float) -> str:
    """Spell 272474 as `272.5 k`: 3 or 4 digits, k = 10^3, M = 10^6, G = 10^9."""
    return _scaled(value, ("", " k", " M", " G", " T"))


def size(value: float) -> str:
    """Spell 1090000 bytes as `1.09 MB`: MB = 10^6 bytes."""
    return _scaled(value, (" B", " kB", " MB", " GB", " TB"))


def _scaled(value: float, units: tuple[str, ...]) -> str:
    if value < 1000:
        return f"{value:.0f}{units[0]}"
    step = 1
    # from 999.95 on, one decimal rounds up to four digits before the point
    while value / 1000**step >= 999.95 and step < len(units) - 1:
        step += 1
    value /= 1000**step
    return f"{value:.{2 if value < 9.995 else 1}f}{units[step]}"


def percent(part: float) -> str:
    """Spell 0.4 as `40.0 %`; a small fraction has two digits (`0.071 %`), and only 1 is spelled `100.0 %`."""
    if 0.9995 <= part < 1:
        return "> 99.9 %"
    return f"{100 * part:.2g} %" if 0 < part < 0.0095 else share(part)


def share(value: float) -> str:
    """Spell 0.1512 as `15.1 %`: always one decimal, for columns."""
    return f"{100 * value:.1f} %".replace("-", "−")


def change(before: float, after: float) -> str:
    """Spell the change from 272.5 to 109 as `−60.0 %`."""
    return f"{_signed(100 * (after - before) / before)} %" if before else "–"


def points(before: float, after: float) -> str:
    """Spell the change from 0.912 to 0.898 as `−1.4 pp`, in percentage points."""
    return f"{_signed(100 * (after - before))} pp"


def _signed(value: float) -> str:
    text = f"{value:+.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "−")


def milliseconds(value: float) -> str:
    """Spell 2.104 as `2.10`: three digits, at most three decimals."""
    decimals = 2 - floor(log10(value)) if value > 0 else 2
    return f"{value:.{min(max(decimals, 0), 3)}f}"


def error(value: float) -> str:
    """Spell 0.0000042 as `4.2e-6`."""
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}" if value else "0"


def seconds(value: float) -> str:
    """Spell 6.13 as `6.1 s`, and 125 as `2:05 min`: minutes from 100 s on."""
    return f"{value:.1f} s" if value < 99.95 else f"{clock(value)} min"


def clock(value: float) -> str:
    """Spell 125 seconds as `2:05`."""
    minutes, rest = divmod(round(value), 60)
    return f"{minutes}:{rest:02d}"

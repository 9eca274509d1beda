"""Falls of a metric as text, and the lines about the search for the smallest network within one."""

from __future__ import annotations

from pfpcli.records.searched import Fall, Search
from pfpcli.report.page import Page


def spelled(value: float, unit: str) -> str:
    """Spell a fall of 0.0081 as `0.8 pp`, of 0.31 decibels as `0.31 dB`, of a metric of the user as `0.0081`."""
    if unit == "pp":
        text = f"{100 * value:.1f} pp"
        return text if value == 0 or float(text[:-3]) else f"{100 * value:.1g} pp"
    return f"{value:.3g}{' ' * bool(unit)}{unit}".replace("-", "−")


def moved(found: Fall) -> str:
    """Return `accuracy falls by 0.8 pp`, or `accuracy rises by 0.3 pp`."""
    how = "falls" if found.fall >= 0 else "rises"
    return f"{found.metric} {how} by {spelled(abs(found.fall), found.unit)}"


def signed(fall: float, unit: str) -> str:
    """Spell a fall as the change that it is: `−0.8 pp`, `+0.3 pp`."""
    return f"{'−' if fall > 0 else '+' if fall < 0 else ''}{spelled(abs(fall), unit)}"


def lines(page: Page, found: Search) -> None:
    """Write what was asked for, what was achieved on the images of the search, and what other images confirm.

    asked      accuracy falls by at most 1.0 pp
    achieved   a fall of 0.8 pp (95 %: −0.9 to 2.9 pp) on 500 images of test that chose the network, 7 networks tried
    confirmed  a fall of 1.1 pp (95 %: −0.7 to 3.1 pp) on 500 images of test
    """
    page.space()
    for lead, text in told(found):
        page.paragraph(f"{lead:<9}  ", text)


def told(found: Search) -> list[tuple[str, str]]:
    """Return these lines as (lead, text)."""
    achieved = found.achieved
    lines = [
        ("asked", f"{achieved.metric} falls by at most {spelled(found.asked, achieved.unit)}"),
        ("achieved", f"{_figures(achieved)}, {len(found.points)} networks tried"),
    ]
    if found.confirmed is not None:
        return [*lines, ("confirmed", f"{_figures(found.confirmed)} that nothing has used")]
    why = "only --metric knows its images" if achieved.images is None else "too few images to keep some apart (--eval)"
    return [*lines, ("confirmed", f"not at all: {why}")]


def _figures(found: Fall) -> str:
    by = "a fall of " + spelled(found.fall, found.unit).replace("-", "−")
    if found.low is None or found.high is None:
        return by if found.images is None else f"{by} on {found.images} {found.source}"
    ends = [spelled(end, found.unit).replace("-", "−") for end in (found.low, found.high)]
    unit = ends[1].partition(" ")[1:]
    low = ends[0].removesuffix("".join(unit))
    return f"{by} (95 %: {low} to {ends[1]}) on {found.images} {found.source}"

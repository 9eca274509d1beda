"""The page of `pfp bench`."""

from __future__ import annotations

from pfpcli.records.benched import Bench, Benched
from pfpcli.report.page import Page

_HEADING = ("network", "batch", "median", "quartiles", "per second", "against the first")


def render(found: Bench, *, width: int = 80, unicode: bool = True) -> str:
    """Return the page.

    network     batch   median  quartiles  per second  against the first
    net.onnx        1  2.10 ms    0.04 ms         476
    small.onnx      1  1.32 ms    0.02 ms         757  1.59 × (1.57 to 1.61)
    """
    page = Page(width, unicode)
    page.table([_HEADING, *map(_row, found.rows)], "<>>>>>", drop=(4, 3))
    page.space()
    page.paragraph("", _machine(found))
    if found.is_noisy:
        page.paragraph("", "the machine does other work: quartiles are far apart; repeat this when it is quiet")
    return page.text()


def markdown(found: Bench) -> str:
    """Return the same as a table in Markdown."""
    lines = [_HEADING, tuple("---" if i == 0 else "--:" for i in range(len(_HEADING))), *map(_row, found.rows)]
    table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
    noisy = " The machine does other work: repeat this when it is quiet." if found.is_noisy else ""
    return f"{table}\n\n{_machine(found)}.{noisy}\n"


def _machine(found: Bench) -> str:
    machine = found.machine
    return (
        f"{machine['runtime']} {machine['version']}, {machine['provider']}, {machine['threads']} threads, "
        f"{machine['processor']}; medians of {min(row.runs for row in found.rows)} runs in turn"
    )


def _row(row: Benched) -> tuple[str, ...]:
    return (
        row.name,
        str(row.batch),
        f"{row.median_ms:.3g} ms",
        f"{row.quartiles_ms:.2g} ms",
        f"{row.per_second:.0f}",
        _against(row.speed_up),
    )


def _against(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    if found["low"] <= 1 <= found["high"]:
        return "no difference measurable"
    return f"{found['times']:.2f} × ({found['low']:.2f} to {found['high']:.2f})"

"""The table of a run's network in several precisions: size, latency and quality side by side."""

from __future__ import annotations

from pfpcli.records.precision import Precision
from pfpcli.records.runs import Run
from pfpcli.report import numbers
from pfpcli.report.page import Page

#: At most this many names of layers are written, unless everything is.
_NAMES = 3


def precisions(page: Page, run: Run, everything: bool) -> None:
    """Write one row for each file, and which layers stay in float32; nothing for a run in float32 alone."""
    if len(run.precisions) < 2:
        return
    page.space()
    found = rows(run)
    if found:
        page.table(found, "<>>>>><", drop=(6, 5, 3))
    for text in remarks(run, everything):
        page.paragraph("", text)


def rows(run: Run) -> list[tuple[str, ...]]:
    """Return the rows of the table, its heading first; none for one file alone."""
    written = [each for each in run.precisions if each.file]
    if len(written) < 2:
        return []
    metric = run.metric.name if run.metric else run.quality.metric
    heading = ("precision", "size", "latency", "", metric, "", "layers")
    return [heading, *(_row(each, written[0], run) for each in written)]


def remarks(run: Run, everything: bool) -> list[str]:
    """Return the quality of the original, which files there are not, and which layers stay in float32."""
    found = []
    if sum(bool(each.file) for each in run.precisions) > 1:
        before = f"{run.metric.before:.4g}" if run.metric else numbers.percent(run.quality.before)
        found.append(f"original {before}; files timed in turn, median of {run.latency['runs']}")
    for each in run.precisions:
        if each.why:
            found.append(f"{each.name} not written: {each.why}")
        elif each.in_float:
            shown = each.in_float if everything else each.in_float[:_NAMES]
            more = len(each.in_float) - len(shown)
            rest = f" and {more} more" if more else ""
            found.append(f"{each.name} leaves in float32: {', '.join(shown)}{rest}")
    return found


def _row(each: Precision, float32: Precision, run: Run) -> tuple[str, str, str, str, str, str, str]:
    latency, speed = "", ""
    if each.latency_ms and float32.latency_ms:
        latency = f"{numbers.milliseconds(each.latency_ms)} ms"
        speed = "" if each is float32 else f"{float32.latency_ms / each.latency_ms:.2f}×"
    quality, change = _quality(each, float32, run)
    layers = "" if each is float32 else f"{each.layers - len(each.in_float)} of {each.layers}"
    return each.name, numbers.size(each.file_bytes or 0), latency, speed, quality, change, layers


def _quality(each: Precision, float32: Precision, run: Run) -> tuple[str, str]:
    """Return the quality, and its change from the float file."""
    if run.metric:
        if each.metric is None or float32.metric is None:
            return "–", ""
        return f"{each.metric:.4g}", "" if each is float32 else f"{each.metric - float32.metric:+.4g}"
    if each.quality is None or float32.quality is None:
        return "–", ""
    before, after = float32.quality.at(run.quality)[1], each.quality.at(run.quality)[1]
    return numbers.percent(after), "" if each is float32 else numbers.points(before, after)

"""The report on a run of `pfp compress`, for a terminal.

`render` is the report, `summary` the last lines of `pfp compress`, and `verdict` the sentence that both contain.
"""

from __future__ import annotations

from typing import Any

from pfpcli.amounts import COUNTED, noun_of
from pfpcli.records.parts import Cost, Recovered
from pfpcli.records.runs import Run
from pfpcli.report import falls, numbers, parts, run_groups, run_layers
from pfpcli.report.certificate import errors
from pfpcli.report.page import Page
from pfpcli.report.precision import precisions
from pfpcli.report.robustness import robustness


def render(run: Run, *, folder: str = "", width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the report on a run.

    Args:
        run: the record.
        folder: the run folder, as the user would write it.
        width: number of columns, at least 60.
        everything: also show the checks, all layers with their errors, all reasons, and how the run was made.
        unicode: whether characters beyond ASCII may be used.

    Returns:
        Without everything, 25 lines for most runs, such as

            PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold

                            before     after   change
              parameters   272.5 k   109.0 k  −60.0 %
              MACs          40.8 M    18.9 M  −53.7 %
              file (onnx)  1.09 MB  437.9 kB  −59.8 %
              latency      2.10 ms   1.32 ms    1.59×  median of 50, 2 threads
              accuracy      91.2 %    89.8 %  −1.4 pp  top-1, 256 held-out images
              agreement          –    95.3 %           top-1 same as the original's

              layer           op           in      out            params   saved
              layer3.2.conv2  conv2d  64 → 21  64 → 64  36.9 k → 12.1 k  15.1 %

              not pruned: 2 groups, 13 channels: output of the model, input of the model

              pfp-runs/model-keep0.40/  model.onnx  model.pt  plan.json  run.json
              … 12 more layers, checks, errors of layers, settings, times: --all
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    parts.advice(page, run)
    (_everything if everything else _main_points)(page, run, folder)
    return page.text()


def _main_points(page: Page, run: Run, folder: str) -> None:
    """Write what most readers need."""
    parts.figures(page, figures(run))
    _work(page, run)
    precisions(page, run, everything=False)
    robustness(page, run, everything=False)
    if run.status == "failed":
        parts.checks(page, run)
    hidden_layers = run_layers.largest(page, run)
    page.space()
    run_groups.not_pruned_in_short(page, run.groups)
    run_groups.inexact_in_short(page, run.groups)
    parts.roles(page, run.quality.outputs, everything=False)
    if run.status != "failed":
        parts.missing_module(page, run)
    parts.warnings(page, run, everything=False)
    page.space()
    parts.files(page, run, folder)
    parts.more(page, parts.more_layers(hidden_layers), "checks", "errors of layers", "settings", "times")


def _everything(page: Page, run: Run, folder: str) -> None:
    """Write all that the record has."""
    parts.figures(page, figures(run, everything=True))
    parts.roles(page, run.quality.outputs, everything=True)
    _work(page, run)
    precisions(page, run, everything=True)
    robustness(page, run, everything=True)
    parts.checks(page, run)
    run_layers.all_layers(page, run)
    errors(page, run)
    run_groups.not_pruned(page, run.groups)
    run_groups.inexact(page, run.groups)
    _unknown_ops(page, run)
    parts.warnings(page, run, everything=True)
    parts.made(page, run)
    parts.facts(page, run)
    parts.files(page, run, folder)


def summary(run: Run, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """Return the last lines of `pfp compress`: the figures, the verdict and the next command.

    `PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold
    wrote pfp-runs/model-keep0.40/    next: pfp report`
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    parts.figures(page, figures(run))
    _work(page, run)
    precisions(page, run, everything=False)
    robustness(page, run, everything=False)
    if run.status == "failed":
        parts.checks(page, run)
    parts.closing(page, verdict(run, page.width), run, folder)
    return page.text()


def verdict(run: Run, width: int = 80) -> str:
    """Return one line: `PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold`.

    Args:
        run: the record.
        width: number of columns; a long name of a model is shortened to fit.
    """
    return parts.fitted(run.model["name"], *_judgement(run), width)


def _judgement(run: Run) -> tuple[str, str]:
    """Return the parts of the verdict before and after the name of the model."""
    asked, kept = budget(run)
    if run.status == "failed":
        return "FAILED", f": {parts.failures(run)} (asked {asked}, kept {kept})"
    measure = noun_of(run.requested)
    if run.search is not None:
        told = run.search.told
        word = "WORSE" if run.status == "worse" else "PASS"
        return word, f": {kept} of the {measure}, {told.metric} {falls.signed(told.fall, told.unit)} (asked {asked})"
    if run.status == "worse":
        missed = "" if run.achieved["exact"] else f" (asked {asked})"
        return "WORSE", f": {parts.fall(run.quality)} at {kept} of the {measure}{missed}"
    if not run.achieved["exact"]:
        return "PASS", f": asked {asked} of the {measure}, closest feasible {kept}"
    return "PASS", f": {kept} of the {measure} (asked {asked}), all checks hold"


def budget(run: Run) -> tuple[str, str]:
    """Return what was asked and what was kept: `("40.0 %", "40.1 %")`."""
    asked, kept = numbers.percent(run.requested["keep"]), numbers.percent(run.achieved["keep"])
    if run.requested.get("epsilon") is not None:
        asked = f"ε = {run.requested['epsilon']:g}"
    asked = run.requested.get("amount") or asked
    if run.search is not None:
        asked = falls.signed(run.search.asked, run.search.told.unit)
    return asked, kept


def figures(run: Run, everything: bool = False) -> list[parts.Row]:
    """Return the rows of the table before → after, its heading first; with everything, the remarks are longer."""
    before, after = run.before, run.after
    rows = [
        ("", "before", "after", "change", ""),
        parts.row("parameters", numbers.count, before.params, after.params),
        parts.row("MACs", numbers.count, before.macs, after.macs),
        parts.row("file (onnx)", numbers.size, before.file_bytes, after.file_bytes),
        _latency(before, after, run, everything),
        _metric(run),
        *parts.quality(run.quality),
    ]
    return [row for row in rows if row]


def _metric(run: Run) -> parts.Row | None:
    """Return the row of the user's metric."""
    found = run.metric
    if found is None:
        return None
    return found.name, f"{found.before:.4g}", f"{found.after:.4g}", f"{found.after - found.before:+.4g}", "--metric"


def _latency(before: Cost, after: Cost, run: Run, everything: bool) -> parts.Row | None:
    """Return the row of the latency; with everything, the remark has the interquartile ranges."""
    if not before.latency_ms or not after.latency_ms:
        return None
    ratio = before.latency_ms / after.latency_ms
    sure = run.latency.get("speed_up")
    same = sure is not None and sure["low"] <= 1 <= sure["high"]
    threads = run.latency.get("threads")
    remark = f"median of {run.latency['runs']}, " + (parts.plural(threads, "thread") if threads else "all cores")
    if not everything:
        remark = "no difference measurable" if same else remark if ratio >= 1 else f"slower; {remark}"
    elif before.latency_iqr_ms is not None and after.latency_iqr_ms is not None:
        iqrs = (numbers.milliseconds(before.latency_iqr_ms), numbers.milliseconds(after.latency_iqr_ms))
        remark += f"\nIQR {' → '.join(iqrs)} ms"
    if everything and (same or ratio < 1):
        remark += "\nno difference measurable" if same else "\nslower than before"
    return (
        "latency",
        f"{numbers.milliseconds(before.latency_ms)} ms",
        f"{numbers.milliseconds(after.latency_ms)} ms",
        "same" if same else f"{ratio:.2f}×",
        remark,
    )


def _work(page: Page, run: Run) -> None:
    """Write what a search has found, which plan was the best, and what was done after the cut."""
    if run.search is not None:
        falls.lines(page, run.search)
    found = _done(run)
    if found:
        page.space()
    for text in found:
        page.paragraph("", text)


def notes(run: Run) -> list[tuple[str, str]]:
    """Return (lead, text) for what a search has found, the best plan, and each recovery."""
    searched = [] if run.search is None else falls.told(run.search)
    return [*searched, *(("", text) for text in _done(run))]


def _done(run: Run) -> list[str]:
    """Return which plan was taken, and one line for each recovery: what it did, and whether it helped."""
    plans: list[dict[str, Any]] = run.scoring.get("plans", [])
    found = []
    if plans:
        taken, *others = plans
        behind = next((each for each in others if each["name"] != taken["name"]), None)
        is_best = all(taken["loss"] <= each["loss"] for each in others)
        of = f"the best of {len(plans)}" if is_best else f"nearly the best of {len(plans)}"
        at = " for the first guess" if COUNTED[run.requested["of"]].is_measured else ""
        text = f"plan {taken['name']}, {of}{at}: loss {taken['loss']:.2g}"
        found.append(text + (f" before recovery ({behind['name']} {behind['loss']:.2g})" if behind else ""))
    found += [run.scoring["widths"]] if run.scoring.get("widths") else []
    for each in run.recovery:
        on = f"{each.method} on {parts.plural(each.images, 'image')}"
        if each.before is None or each.after is None:
            found.append(f"recovered by {on}, not checked: there were no others")
        else:
            change = f"{each.metric} {numbers.percent(each.before)} → {numbers.percent(each.after)}"
            did = f"{on} undone" if each.undone else f"recovered by {on}"
            found.append(f"{did}: {change} on {each.checked} others{_by_closeness(each)}")
        found += each.remarks
    return found


def _by_closeness(of: Recovered) -> str:
    """Return what decided about a recovery whose metric says otherwise; nothing if its metric decided."""
    if of.before is None or of.after is None or of.closeness_before is None or of.closeness_after is None:
        return ""
    if (of.after < of.before) == of.undone:
        return ""
    why = f"the outputs are {'less close' if of.undone else 'closer'} to the original's"
    return f"; too few to tell, and {why} (closeness {of.closeness_before:.2f} → {of.closeness_after:.2f})"


def _unknown_ops(page: Page, run: Run) -> None:
    unknown = run.trace.get("unknown")
    if unknown:
        page.space()
        ranked = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
        page.paragraph("ops without a rule: ", ", ".join(f"{op} ×{times}" for op, times in ranked))

"""Parts that the reports on all kinds of runs have: figures of quality, checks, warnings, what a run rests on."""

from __future__ import annotations

import shlex
from pathlib import Path

from pfpcli.records.folders import FILES, RUNS
from pfpcli.records.parts import Quality
from pfpcli.records.runs import Record
from pfpcli.report import numbers
from pfpcli.report.page import SHORTEST, Page, shorten, spell

#: The narrowest page; a terminal that is narrower wraps it.
NARROWEST = 60

_METRICS = {
    "accuracy": "top-1",
    "agreement": "top-1 same as the original's",
    "similarity": "1 − relative L2 distance of the outputs",
}

#: A row of the table before → after: name, before, after, change, remark.
Row = tuple[str, str, str, str, str]


def row(name: str, spelled: numbers.Spelling, before: float | None, after: float | None) -> Row | None:
    """One row, or None where nothing was measured."""
    if before is None or after is None:
        return None
    return (name, spelled(before), spelled(after), numbers.change(before, after), "")


def quality(found: Quality) -> list[Row]:
    """The metric and, beside an accuracy, how many decisions stayed the same."""
    meaning, images = _METRICS[found.metric], f"{found.n} {found.source}"
    before, after = found.before, numbers.percent(found.after)
    if found.metric != "accuracy":
        return [(found.metric, "–", after, "", f"{meaning}\n{images}")]
    difference = numbers.points(before, found.after)
    rows = [("accuracy", numbers.percent(before), after, difference, f"{meaning}, {images}")]
    if found.agreement is not None:
        rows.append(("agreement", "–", numbers.percent(found.agreement), "", _METRICS["agreement"]))
    return rows


def plural(number: int, noun: str) -> str:
    """`3 channels`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def checks(page: Page, run: Record) -> None:
    """What was checked on the result, and how far it was off."""
    page.space()
    for name, _, found, bound in differences(run):
        figure = numbers.error(found)
        if bound is None:
            page.paragraph(f"{name}  ", figure)
        elif found <= bound:
            page.paragraph(f"{name}  ", f"{figure} (≤ {numbers.error(bound)})")
        else:
            page.paragraph(f"{name}  ", f"{figure}, more than {numbers.error(bound)}: FAILED")
    reason = run.verification.model_pt
    page.paragraph(f"{FILES['pt']:<12}  ", "written" if reason == "ok" else f"not written: {reason}")


def differences(run: Record) -> list[tuple[str, str, float, float | None]]:
    """(what should be the same, how to say that it is not, difference, tolerance) for what was compared."""
    checked = run.verification
    compared = [
        ("cut ≡ masked", "cut ≠ masked", checked.cut_vs_masked, checked.tolerance.get("cut_vs_masked")),
        ("onnx ≡ torch", "onnx ≠ torch", checked.onnx_vs_torch, checked.tolerance.get("onnx_vs_torch")),
    ]
    return [(yes, no, found, bound) for yes, no, found, bound in compared if found is not None]


def failures(run: Record) -> list[str]:
    """What did not hold."""
    # "not <=" and not ">": a difference that is no number holds no bound
    failed = [no for _, no, found, bound in differences(run) if bound is not None and not found <= bound]
    return failed or ([] if run.verification.model_pt == "ok" else [f"no {FILES['pt']}"])


def warnings(page: Page, run: Record) -> None:
    """What a user should know."""
    if run.warnings:
        page.space()
    for warning in run.warnings:
        page.paragraph("warning: ", warning)


def made(page: Page, run: Record, everything: bool) -> None:
    """What the figures rest on, in one line; with everything, what else it takes to get them again."""
    images, scoring = run.calibration, run.scoring
    page.space()
    on = f"scored on {images['scored']} of {images['images']} images in {images['folder']}"
    how = on if scoring.get("samples", 1) else "scored without images"
    page.paragraph("", f"{how}, criterion {scoring['criterion']}")
    page.paragraph("", images["preprocess"].get("describe", ""))
    if everything:
        facts(page, run)


def facts(page: Page, run: Record) -> None:
    """What else it takes to get the figures of a run again."""
    found = {
        "settings": _pairs({name: value for name, value in run.settings.items() if value is not False and value != []}),
        "scoring": _pairs(run.scoring),
        "times": ", ".join(f"{step} {numbers.seconds(taken)}" for step, taken in run.timings.items()),
        "machine": _pairs(run.machine),
        "made": f"{run.created} by pfp {run.pfp_version}",
        "sha256": str(run.model.get("sha256", "")),
    }
    for name, fact in found.items():
        if fact:
            page.paragraph(f"{name:<9} ", fact)


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values.items()
        if value is not None
    )


def files(page: Page, run: Record, folder: str) -> None:
    """What lies in the run folder."""
    names = dict.fromkeys([name for name in run.artifacts.values() if name] + [FILES["run"]])
    page.paragraph(f"{folder}/  " if folder else "files: ", "  ".join(names))


def wrote(page: Page, folder: str) -> None:
    """Where the run lies, if anywhere, and how to look at it."""
    if folder:
        known = Path(folder).parent == RUNS
        following = f"next: pfp report{'' if known else f' {shlex.quote(folder)}'}"
        page.lines.append(spell(f"wrote {folder}/    {following}", page.unicode))


def fitted(name: str, word: str, rest: str, width: int) -> str:
    """A verdict in one line: a word, the name of what it is about, shortened to fit, and the rest."""
    return f"{word}  {shorten(name, max(width - len(word) - 2 - len(rest), SHORTEST))}{rest}"

"""Parts that the reports on all runs share: rows of quality, checks, warnings, settings and files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from pfpcli.records.folders import FILES, RUNS
from pfpcli.records.inspection import OutputSeen
from pfpcli.records.parts import OutputQuality, Quality
from pfpcli.records.runs import Record
from pfpcli.report import numbers
from pfpcli.report.page import SHORTEST, Page, shorten, spell

#: The narrowest page; a narrower terminal wraps it.
NARROWEST = 60

#: What the metrics of records mean that do not say it themselves.
_METRICS = {
    "accuracy": "top-1",
    "agreement": "top-1 same as the original's",
    "similarity": "1 − relative L2 distance of the outputs",
}
#: The most outputs that are shown, unless everything is.
_OUTPUTS = 4

#: A row of the table before → after: name, before, after, change, remark.
Row = tuple[str, str, str, str, str]


def row(
    name: str, spelled: numbers.Spelling, before: float | None, after: float | None, remark: str = ""
) -> Row | None:
    """Return a row, or None where nothing was measured."""
    if before is None or after is None:
        return None
    return (name, spelled(before), spelled(after), numbers.change(before, after), remark)


def figures(page: Page, rows: Sequence[Row]) -> None:
    """Write the table before → after."""
    page.space()
    page.annotated(rows, "<>>>")


def quality(found: Quality) -> list[Row]:
    """Return a row for the metric and, for an accuracy, a second row for the agreement; rows of further outputs."""
    meaning = found.meaning or _METRICS.get(found.metric, "")
    images = f"{found.n} {found.source}"
    before, after = found.before, numbers.percent(found.after)
    others = [] if len(found.outputs) < 2 else _others(found)
    if found.metric != "accuracy" and before == 1:
        of = f"{found.output}: " if others else ""
        return [(found.metric, "–", after, "", f"{of}{meaning}\n{images}"), *others]
    difference = numbers.points(before, found.after)
    rows = [(found.metric, numbers.percent(before), after, difference, f"{meaning}, {images}")]
    if found.agreement is not None:
        rows.append(("agreement", "–", numbers.percent(found.agreement), "", _METRICS["agreement"]))
    return [*rows, *others]


def _others(found: Quality) -> list[Row]:
    """Return rows for the first outputs but that of the headline, in the order of the record, and how many follow."""
    others = [each for each in found.outputs if each.name != found.output]
    rows: list[Row] = [(each.metric, "–", numbers.percent(each.after), "", each.name) for each in others[:_OUTPUTS]]
    if len(others) > _OUTPUTS:
        rows.append(("", "", "", "", f"{len(others) - _OUTPUTS} more outputs: --all"))
    return rows


def roles(page: Page, outputs: Sequence[OutputQuality | OutputSeen], everything: bool) -> None:
    """Write what each output says, why pfp thinks so, and how to say otherwise; a sure one takes one line."""
    told = [each for each in outputs if " + " not in each.name]
    shown = told if everything else told[:_OUTPUTS]
    if told and everything:
        page.space()
    for each in shown:
        text = f"{spell(each.name, page.unicode)}: {each.role} ({each.why})"
        measures = getattr(each, "measures", {}) if everything else {}
        found = ", ".join(f"{name} {value:.4g}" for name, value in measures.items())
        (page.paragraph if everything else page.line)("output ", text + (f"; {found}" if found else ""))
    if (told and (everything or len(told) > 1)) or any(each.role == "regression" for each in told):
        rest = f"{len(told) - len(shown)} more outputs; " if len(told) > len(shown) else ""
        page.paragraph("", f"{rest}if this is wrong: --output {told[0].name.partition('[')[0]}=ROLE, or --task")


def plural(number: int, noun: str) -> str:
    """Return `3 channels`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def checks(page: Page, run: Record) -> None:
    """Write the checks of the result, each with the difference found and its tolerance."""
    page.space()
    for name, _, found, bound in differences(run):
        figure = numbers.error(found)
        if bound is None:
            page.paragraph(f"{name}  ", figure)
        elif found <= bound:
            page.paragraph(f"{name}  ", f"{figure} (≤ {numbers.error(bound)})")
        else:
            page.paragraph(f"{name}  ", f"{figure}, more than {numbers.error(bound)}: FAILED")
    page.paragraph(f"{FILES['pt']:<12}  ", model_pt(run))


def missing_module(page: Page, run: Record) -> None:
    """Write in one line why there is no model.pt, if there is none."""
    if run.verification.model_pt != "ok":
        page.line(f"{FILES['pt']} ", model_pt(run))


def model_pt(run: Record) -> str:
    """Return whether model.pt was written, or why it was not."""
    reason = run.verification.model_pt
    return "written" if reason == "ok" else f"not written: {reason}"


def differences(run: Record) -> list[tuple[str, str, float, float | None]]:
    """Return (name of the check, how a failure of it is called, difference found, tolerance) for each check made."""
    checked = run.verification
    compared = [
        ("cut ≡ masked", "cut ≠ masked", checked.cut_vs_masked, checked.tolerance.get("cut_vs_masked")),
        ("onnx ≡ torch", "onnx ≠ torch", checked.onnx_vs_torch, checked.tolerance.get("onnx_vs_torch")),
    ]
    return [(yes, no, found, bound) for yes, no, found, bound in compared if found is not None]


def fall(quality: Quality) -> str:
    """Return `accuracy 94.3 % → 77.9 %`."""
    return f"{quality.metric} {numbers.percent(quality.before)} → {numbers.percent(quality.after)}"


def failures(run: Record) -> str:
    """Return the checks that failed, or why the network is worth nothing."""
    if run.failure:
        return run.failure
    # "not <=" and not ">": a difference that is NaN is within no tolerance
    failed = [no for _, no, found, bound in differences(run) if bound is not None and not found <= bound]
    if not failed and run.verification.model_pt != "ok":
        failed = [f"no {FILES['pt']}"]
    return ", ".join(failed) or "a check did not hold"


def warnings(page: Page, run: Record, everything: bool) -> None:
    """Write the warnings, in one line each or in full."""
    if run.warnings:
        page.space()
    for warning in run.warnings:
        (page.paragraph if everything else page.line)("warning: ", warning)


def made(page: Page, run: Record) -> None:
    """Write which images were scored by which criterion."""
    page.space()
    page.paragraph("", scored(run))
    preprocessing(page, run)


def scored(run: Record) -> str:
    """Return `scored on 256 of 512 images in imgs, criterion pfp`."""
    images, scoring = run.calibration, run.scoring
    on = f"scored on {images['scored']} of {images['images']} images in {images['folder']}"
    how = on if scoring.get("samples", 1) else "scored without images"
    how = (
        "not scored: cut as a plan says"
        if scoring["criterion"] == "plan"
        else f"{how}, criterion {scoring['criterion']}"
    )
    return how


def preprocessing(page: Page, run: Record) -> None:
    """Write how images were preprocessed."""
    page.paragraph("", run.calibration["preprocess"].get("describe", ""))


def facts(page: Page, run: Record) -> None:
    """Write everything else that is needed to repeat the run: settings, versions, durations."""
    settings = {name: value for name, value in run.settings.items() if value is not False and value != []}
    for name, fact in {"settings": _pairs(settings), **made_by(run)}.items():
        if fact:
            page.paragraph(f"{name:<9} ", fact)


def made_by(run: Record) -> dict[str, str]:
    """Return name -> what is needed to repeat a run beyond its settings: versions, durations, hashes."""
    return {
        "set by": ", ".join(f"{name}: {origin}" for name, origin in run.origins.items()),
        "scoring": _pairs({name: value for name, value in run.scoring.items() if name not in ("plans", "widths")}),
        "plans": ", ".join(f"{each['name']} {each['loss']:.4g}" for each in run.scoring.get("plans", [])),
        "times": ", ".join(f"{step} {numbers.seconds(taken)}" for step, taken in run.timings.items()),
        "memory": _memory(run),
        "machine": _pairs(run.machine),
        "made": f"{run.created} by pfp {run.pfp_version}",
        "sha256": str(run.model.get("sha256", "")),
    }


def _memory(run: Record) -> str:
    """Return how much memory a run needed; "" where that is not known."""
    if not run.memory:
        return ""
    peak, above = run.memory["peak"], run.memory["peak"] - run.memory["traced"]
    most = max(run.memory["steps"], key=run.memory["steps"].__getitem__)
    return f"at most {numbers.size(peak)} (step {most}), {numbers.size(above)} above the traced network"


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values.items()
        if value is not None
    )


def files(page: Page, run: Record, folder: str) -> None:
    """Write the run folder and its files: in one line, or the files below the folder."""
    names = "  ".join(names_of_files(run))
    lead = f"{folder}/  " if folder else "files: "
    if len(lead) + len(names) + 2 <= page.width:
        page.paragraph(lead, names)
    else:
        page.paragraph("", lead)
        page.paragraph("", names, indent=4)


def names_of_files(run: Record) -> list[str]:
    """Return the names of the files of a run; older records do not name run.json."""
    return list(dict.fromkeys([name for name in run.artifacts.values() if name] + [FILES["run"]]))


def more(page: Page, *hidden: str) -> None:
    """Write which parts of the report only `--all` shows."""
    page.line("… ", f"{', '.join(part for part in hidden if part)}: --all")


def more_layers(number: int) -> str:
    """Return `3 more layers`; empty for none."""
    return plural(number, "more layer") if number > 0 else ""


def advice(page: Page, run: Record) -> None:
    """Write what helps a network whose quality fell."""
    if run.advice:
        page.paragraph("", run.advice)


def closing(page: Page, verdict: str, run: Record, folder: str) -> None:
    """End a summary: the verdict, what helps, the run folder if there is one, and the command that shows the report."""
    page.space()
    page.paragraph("", verdict, indent=0)
    advice(page, run)
    if folder:
        known = Path(folder).parent == RUNS
        following = f"next: pfp report{'' if known else f' {shlex.quote(folder)}'}, or open {FILES['page']}"
        page.lines.append(spell(f"wrote {folder}/    {following}", page.unicode))


def fitted(name: str, word: str, rest: str, width: int) -> str:
    """Return a verdict in one line: a word, a name that is shortened to fit, and the rest."""
    return f"{word}  {shorten(name, max(width - len(word) - 2 - len(rest), SHORTEST))}{rest}"

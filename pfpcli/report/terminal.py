"""The report for a terminal: did it work, what came out, where was it saved, what was left alone. Plain text.

`render` is the whole report, `summary` what `pfp compress` ends with, `verdict` the sentence both have. Colour is not
their business: everything is said in words, and the command line may colour some of them.
"""

from __future__ import annotations

import shlex
from pathlib import Path

from pfpcli.record import FILES, RUNS, Cost, GroupRow, Layer, Quality, Run
from pfpcli.report import numbers
from pfpcli.report.page import SHORTEST, Page, shorten, spell

#: Rows shown before "… more, --all".
LAYERS, REASONS, NAMES = 8, 5, 3

#: The narrowest page; a terminal that is narrower wraps it.
NARROWEST = 60

_MEASURES = {"params": "parameters", "macs": "MACs"}
_METRICS = {
    "accuracy": "top-1",
    "agreement": "top-1 same as the original's",
    "similarity": "1 − relative L2 distance of the outputs",
}


def render(run: Run, *, folder: str = "", width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """The report on one run.

    Args:
        run: the record.
        folder: where the run lies, as the user would write it.
        width: columns to fit in, 60 at least.
        everything: all layers, names and reasons, and how the run was made.
        unicode: use characters beyond ASCII.

    Returns:
        Lines such as

            PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold

                            before     after   change
              parameters   272.5 k   109.0 k  −60.0 %
              MACs          40.8 M    18.9 M  −53.7 %
              file (onnx)  1.09 MB  437.9 kB  −59.8 %
              latency      2.10 ms   1.32 ms    1.59×  median of 50, 2 threads
                                                       IQR 0.052 → 0.041 ms
              accuracy      91.2 %    89.8 %  −1.4 pp  top-1, 256 held-out images
              agreement          –    95.3 %           top-1 same as the original's

              cut ≡ masked  3.1e-15 (≤ 1e-9)
              onnx ≡ torch  4.2e-6 (≤ 1e-4)
              model.pt      written

              layer           op           in      out            params   saved
              layer3.2.conv2  conv2d  64 → 21  64 → 64  36.9 k → 12.1 k  15.1 %
              … 12 more, --all

              not pruned
                10 channels  output of the model: linear
                 3 channels  input of the model: input x

              scored on 256 of 320 images in imgs, criterion pfp
              imagenet: /255, mean 0.485 0.456 0.406, std 0.229 0.224 0.225, …
              pfp-runs/model-keep0.40/  model.onnx  model.pt  plan.json  run.json
    """
    page = Page(max(width, NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    _figures(page, run)
    _checks(page, run)
    _layers(page, run, everything)
    _not_pruned(page, run.groups, everything)
    _inexact(page, run.groups, everything)
    _unknown_ops(page, run)
    _warnings(page, run)
    _made(page, run, everything)
    _files(page, run, folder)
    return page.text()


def summary(run: Run, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """What a compression ends with: the figures, the verdict and where to go from here.

    `PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold
    wrote pfp-runs/model-keep0.40/    next: pfp report`
    """
    page = Page(max(width, NARROWEST), unicode)
    _figures(page, run)
    if run.status != "ok":
        _checks(page, run)
    page.space()
    page.paragraph("", verdict(run, page.width), indent=0)
    if folder:
        known = Path(folder).parent == RUNS
        page.lines.append(
            spell(f"wrote {folder}/    next: pfp report{'' if known else f' {shlex.quote(folder)}'}", unicode)
        )
    return page.text()


def verdict(run: Run, width: int = 80) -> str:
    """Whether it worked, in one line: `PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold`.

    Args:
        run: the record.
        width: columns; a long name of a model is shortened to fit.
    """
    word, rest = _judgement(run)
    return f"{word}  {shorten(run.model['name'], max(width - len(word) - 2 - len(rest), SHORTEST))}{rest}"


def _judgement(run: Run) -> tuple[str, str]:
    """What stands before the model's name in the verdict, and after it."""
    asked, kept = numbers.percent(run.requested["keep"]), numbers.percent(run.achieved["keep"])
    if run.requested.get("epsilon") is not None:
        asked = f"ε = {run.requested['epsilon']:g}"
    if run.status != "ok":
        return "FAILED", f": {', '.join(_failures(run)) or 'a check did not hold'} (asked {asked}, kept {kept})"
    measure = _MEASURES[run.requested["of"]]
    if not run.achieved["exact"]:
        return "PASS", f": asked {asked} of the {measure}, closest feasible {kept}"
    return "PASS", f": {kept} of the {measure} (asked {asked}), all checks hold"


def _differences(run: Run) -> list[tuple[str, str, float, float | None]]:
    """(what should be the same, how to say that it is not, difference, tolerance) for both comparisons."""
    checked = run.verification
    return [
        ("cut ≡ masked", "cut ≠ masked", checked.cut_vs_masked, checked.tolerance.get("cut_vs_masked")),
        ("onnx ≡ torch", "onnx ≠ torch", checked.onnx_vs_torch, checked.tolerance.get("onnx_vs_torch")),
    ]


def _failures(run: Run) -> list[str]:
    # "not <=" and not ">": a difference that is no number holds no bound
    failed = [no for _, no, found, bound in _differences(run) if bound is not None and not found <= bound]
    return failed or ([] if run.verification.model_pt == "ok" else [f"no {FILES['pt']}"])


def _figures(page: Page, run: Run) -> None:
    """The table before → after."""
    before, after = run.before, run.after
    rows = [
        ("", "before", "after", "change", ""),
        _row("parameters", numbers.count, before.params, after.params),
        _row("MACs", numbers.count, before.macs, after.macs),
        _row("file (onnx)", numbers.size, before.file_bytes, after.file_bytes),
        _latency(before, after, run),
        *_quality(run.quality),
    ]
    page.space()
    page.annotated([row for row in rows if row], "<>>>")


_Row = tuple[str, str, str, str, str]


def _row(name: str, spelled: numbers.Spelling, before: float | None, after: float | None) -> _Row | None:
    """One row, or None where nothing was measured."""
    if before is None or after is None:
        return None
    return (name, spelled(before), spelled(after), numbers.change(before, after), "")


def _latency(before: Cost, after: Cost, run: Run) -> _Row | None:
    if not before.latency_ms or not after.latency_ms:
        return None
    ratio = before.latency_ms / after.latency_ms
    threads = run.latency.get("threads")
    remark = f"median of {run.latency['runs']}, " + (_plural(threads, "thread") if threads else "all cores")
    if before.latency_iqr_ms is not None and after.latency_iqr_ms is not None:
        iqrs = (numbers.milliseconds(before.latency_iqr_ms), numbers.milliseconds(after.latency_iqr_ms))
        remark += f"\nIQR {' → '.join(iqrs)} ms"
    if ratio < 1:
        remark += "\nslower than before"
    return (
        "latency",
        f"{numbers.milliseconds(before.latency_ms)} ms",
        f"{numbers.milliseconds(after.latency_ms)} ms",
        f"{ratio:.2f}×",
        remark,
    )


def _quality(quality: Quality) -> list[_Row]:
    """The metric and, beside an accuracy, how many decisions stayed the same."""
    meaning, images = _METRICS[quality.metric], f"{quality.n} {quality.source}"
    before, after = quality.before, numbers.percent(quality.after)
    if quality.metric != "accuracy":
        return [(quality.metric, "–", after, "", f"{meaning}\n{images}")]
    difference = numbers.points(before, quality.after)
    rows = [("accuracy", numbers.percent(before), after, difference, f"{meaning}, {images}")]
    if quality.agreement is not None:
        rows.append(("agreement", "–", numbers.percent(quality.agreement), "", _METRICS["agreement"]))
    return rows


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _checks(page: Page, run: Run) -> None:
    page.space()
    for name, _, found, bound in _differences(run):
        figure = numbers.error(found)
        if bound is None:
            page.paragraph(f"{name}  ", figure)
        elif found <= bound:
            page.paragraph(f"{name}  ", f"{figure} (≤ {numbers.error(bound)})")
        else:
            page.paragraph(f"{name}  ", f"{figure}, more than {numbers.error(bound)}: FAILED")
    reason = run.verification.model_pt
    page.paragraph(f"{FILES['pt']:<12}  ", "written" if reason == "ok" else f"not written: {reason}")


def _layers(page: Page, run: Run, everything: bool) -> None:
    """Where the parameters went: the layers that lost most of them first."""
    ranked = sorted(run.layers, key=lambda layer: -_saved(layer))
    smaller = [layer for layer in ranked if _saved(layer) > 0]
    shown = ranked if everything else smaller[:LAYERS]
    page.space()
    if not shown:
        page.paragraph("", "no layer lost parameters")
        return
    total = run.before.params - run.after.params
    columns = [
        [layer.name for layer in shown],
        [layer.op for layer in shown],
        _arrows([layer.channels_in for layer in shown], str),
        _arrows([layer.channels_out for layer in shown], str),
        _arrows([layer.params for layer in shown], numbers.count),
        [numbers.share(_saved(layer) / total) if total else "–" for layer in shown],
    ]
    rows = [("layer", "op", "in", "out", "params", "saved"), *zip(*columns, strict=True)]
    page.table(rows, "<<>>>>", shrink=0, drop=(1, 2))
    if len(smaller) > len(shown):
        page.paragraph("", f"… {len(smaller) - len(shown)} more, --all")


def _saved(layer: Layer) -> int:
    return layer.params[0] - layer.params[1]


def _arrows(pairs: list[tuple[int, int]], spelled: numbers.Spelling) -> list[str]:
    """`64 → 21` for each pair, the arrows below each other."""
    old, new = ([spelled(number) for number in side] for side in zip(*pairs, strict=True))
    left, right = max(map(len, old)), max(map(len, new))
    return [f"{a:>{left}} → {b:>{right}}" for a, b in zip(old, new, strict=True)]


def _not_pruned(page: Page, groups: list[GroupRow], everything: bool) -> None:
    """What was frozen and why; channels that go together count once."""
    _reasons(page, "not pruned", [(g.frozen_reason, g.size, g.name) for g in groups if g.frozen_reason], everything)


def _inexact(page: Page, groups: list[GroupRow], everything: bool) -> None:
    """Where a statistic is taken over fewer channels now: there, the cut is no longer the network it was."""
    dropped = [(g.inexact, g.size - g.kept, g.name) for g in groups if g.inexact and g.kept < g.size]
    _reasons(page, "dropped although a statistic across channels changes", dropped, everything)


def _reasons(page: Page, heading: str, found: list[tuple[str, int, str]], everything: bool) -> None:
    """(reason, channels, name), gathered by reason; the reasons that concern most channels first."""
    if not found:
        return
    page.space()
    page.paragraph("", heading)
    names: dict[str, list[str]] = {}
    channels: dict[str, int] = {}
    for reason, size, name in found:
        names.setdefault(reason, []).append(name)
        channels[reason] = channels.get(reason, 0) + size
    ranked = sorted(names, key=lambda reason: -channels[reason])
    shown = ranked if everything else ranked[:REASONS]
    wide = max(len(str(channels[reason])) for reason in shown)
    for reason in shown:
        lead = f"{channels[reason]:>{wide}} channel{'s' if channels[reason] != 1 else ' '}  "
        page.paragraph(lead, f"{reason}: {_few(names[reason], everything)}", indent=4)
    if len(ranked) > len(shown):
        rest = sum(channels[reason] for reason in ranked[len(shown) :])
        page.paragraph("", f"… {len(ranked) - len(shown)} more reasons ({rest} channels), --all", indent=4)


def _few(names: list[str], everything: bool) -> str:
    names = list(dict.fromkeys(names))
    shown = names if everything or len(names) <= NAMES + 1 else names[:NAMES]
    return ", ".join(shown) + (f" … {len(names) - len(shown)} more" if len(names) > len(shown) else "")


def _unknown_ops(page: Page, run: Run) -> None:
    unknown = run.trace.get("unknown")
    if unknown:
        page.space()
        ranked = sorted(unknown.items(), key=lambda item: (-item[1], item[0]))
        page.paragraph("ops without a rule: ", ", ".join(f"{op} ×{times}" for op, times in ranked))


def _warnings(page: Page, run: Run) -> None:
    if run.warnings:
        page.space()
    for warning in run.warnings:
        page.paragraph("warning: ", warning)


def _made(page: Page, run: Run, everything: bool) -> None:
    """What the figures rest on, in one line; with everything, what else it takes to get them again."""
    images, scoring = run.calibration, run.scoring
    page.space()
    scored = f"scored on {scoring['samples']} of {images['images']} images in {images['folder']}"
    how = scored if scoring["samples"] else "scored without images"
    page.paragraph("", f"{how}, criterion {scoring['criterion']}")
    page.paragraph("", images["preprocess"].get("describe", ""))
    if not everything:
        return
    facts = {
        "settings": _pairs({name: value for name, value in run.settings.items() if value is not False and value != []}),
        "scoring": _pairs(scoring),
        "times": ", ".join(f"{step} {numbers.seconds(taken)}" for step, taken in run.timings.items()),
        "machine": _pairs(run.machine),
        "made": f"{run.created} by pfp {run.pfp_version}",
        "sha256": str(run.model.get("sha256", "")),
    }
    for name, fact in facts.items():
        if fact:
            page.paragraph(f"{name:<9} ", fact)


def _pairs(values: dict[str, object]) -> str:
    return ", ".join(
        f"{name} {f'{value:.4g}' if isinstance(value, float) else value}"
        for name, value in values.items()
        if value is not None
    )


def _files(page: Page, run: Run, folder: str) -> None:
    files = dict.fromkeys([name for name in run.artifacts.values() if name] + [FILES["run"]])
    page.paragraph(f"{folder}/  " if folder else "files: ", "  ".join(files))

"""The report for a terminal: did it work, what came out, where was it saved, what was left alone. Plain text.

`render` is the whole report, `summary` what `pfp compress` ends with, `verdict` the sentence both have. Colour is not
their business: everything is said in words, and the command line may colour some of them.
"""

from __future__ import annotations

from pfpcli.records.parts import Cost, GroupRow, LayerRow
from pfpcli.records.runs import Run
from pfpcli.report import numbers, parts
from pfpcli.report.certificate import errors
from pfpcli.report.page import Page

#: Rows shown before "… more, --all".
LAYERS, REASONS, NAMES = 8, 5, 3

_MEASURES = {"params": "parameters", "macs": "MACs"}


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
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    _figures(page, run)
    _recovery(page, run)
    parts.checks(page, run)
    _layers(page, run, everything)
    errors(page, run, everything)
    _not_pruned(page, run.groups, everything)
    _inexact(page, run.groups, everything)
    _unknown_ops(page, run)
    parts.warnings(page, run)
    parts.made(page, run, everything)
    parts.files(page, run, folder)
    return page.text()


def summary(run: Run, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """What a compression ends with: the figures, the verdict and where to go from here.

    `PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold
    wrote pfp-runs/model-keep0.40/    next: pfp report`
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    _figures(page, run)
    _recovery(page, run)
    if run.status != "ok":
        parts.checks(page, run)
    page.space()
    page.paragraph("", verdict(run, page.width), indent=0)
    parts.wrote(page, folder)
    return page.text()


def verdict(run: Run, width: int = 80) -> str:
    """Whether it worked, in one line: `PASS  model.pt: 40.0 % of the parameters (asked 40.0 %), all checks hold`.

    Args:
        run: the record.
        width: columns; a long name of a model is shortened to fit.
    """
    return parts.fitted(run.model["name"], *_judgement(run), width)


def _judgement(run: Run) -> tuple[str, str]:
    """What stands before the model's name in the verdict, and after it."""
    asked, kept = numbers.percent(run.requested["keep"]), numbers.percent(run.achieved["keep"])
    if run.requested.get("epsilon") is not None:
        asked = f"ε = {run.requested['epsilon']:g}"
    if run.status != "ok":
        return "FAILED", f": {', '.join(parts.failures(run)) or 'a check did not hold'} (asked {asked}, kept {kept})"
    measure = _MEASURES[run.requested["of"]]
    if not run.achieved["exact"]:
        return "PASS", f": asked {asked} of the {measure}, closest feasible {kept}"
    return "PASS", f": {kept} of the {measure} (asked {asked}), all checks hold"


def _figures(page: Page, run: Run) -> None:
    """The table before → after."""
    before, after = run.before, run.after
    rows = [
        ("", "before", "after", "change", ""),
        parts.row("parameters", numbers.count, before.params, after.params),
        parts.row("MACs", numbers.count, before.macs, after.macs),
        parts.row("file (onnx)", numbers.size, before.file_bytes, after.file_bytes),
        _latency(before, after, run),
        *parts.quality(run.quality),
    ]
    page.space()
    page.annotated([row for row in rows if row], "<>>>")


def _recovery(page: Page, run: Run) -> None:
    """What was done after the cut, and whether it helped."""
    if run.recovery:
        page.space()
    for each in run.recovery:
        on = f"{each.method} on {parts.plural(each.images, 'image')}"
        if each.before is None or each.after is None:
            page.paragraph("", f"recovered by {on}, not checked: there were no others")
            continue
        change = f"{each.metric} {numbers.percent(each.before)} → {numbers.percent(each.after)}"
        did = f"{on} undone" if each.undone else f"recovered by {on}"
        page.paragraph("", f"{did}: {change} on {each.checked} others")


def _latency(before: Cost, after: Cost, run: Run) -> parts.Row | None:
    if not before.latency_ms or not after.latency_ms:
        return None
    ratio = before.latency_ms / after.latency_ms
    threads = run.latency.get("threads")
    remark = f"median of {run.latency['runs']}, " + (parts.plural(threads, "thread") if threads else "all cores")
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


def _saved(layer: LayerRow) -> int:
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

"""The page of `pfp verify`: the differences of networks, pair by pair."""

from __future__ import annotations

from pfpcli.records.verified import NetworksCompared, Verified
from pfpcli.report import numbers
from pfpcli.report.page import Page

#: The most outputs of a pair that are shown, unless everything is.
_OUTPUTS = 6


def render(found: Verified, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page.

    model.onnx (onnxruntime) against model.pt2 (torch)

      output  shape  largest     mean  allowed
      linear     12  3.8e-06  5.1e-07  1.6e-03  same
      agreement 100.0 %  linear: top-1 same as the reference's

    PASS  model.onnx ≡ model.pt2 on 16 random inputs of 3×32×32
    """
    page = Page(width, unicode)
    for pair in found.pairs:
        _pair(page, pair, everything)
    for name, reason in found.skipped.items():
        page.paragraph(f"{name} not compared: ", reason, indent=0)
    page.space()
    page.paragraph("", verdict(found), indent=0)
    return page.text()


def verdict(found: Verified) -> str:
    """Return one line that says whether the networks compute the same."""
    counted = [pair for pair in found.pairs if not pair.remark]
    if not found.same:
        different = "; ".join(_difference(pair) for pair in counted if not pair.same)
        return f"FAILED  {different}, on {found.inputs}"
    if not counted:
        return f"PASS  no comparison counts, on {found.inputs}"
    return f"PASS  {', '.join(f'{pair.second} ≡ {pair.first}' for pair in counted)}, on {found.inputs}"


def _difference(pair: NetworksCompared) -> str:
    worst = max((each for each in pair.outputs if not each.same), key=lambda each: each.largest - each.allowed)
    return (
        f"{pair.second} ≠ {pair.first}: output {worst.name} differs by {_figure(worst.largest)}, "
        f"more than {_figure(worst.allowed)}"
    )


def _pair(page: Page, pair: NetworksCompared, everything: bool) -> None:
    """Write the differences and the answers of two networks."""
    page.space()
    names = zip((pair.second, pair.first), reversed(pair.runtimes), strict=True)
    remark = f" ({pair.remark})" if pair.remark else ""
    page.paragraph("", " against ".join(f"{name} in {runtime}" for name, runtime in names) + remark, indent=0)
    page.space()
    outputs = sorted(pair.outputs, key=lambda each: each.largest <= each.allowed)
    shown = outputs if everything else outputs[:_OUTPUTS]
    rows = [("output", "shape", "largest", "mean", "allowed", "")]
    rows += [
        (
            each.name,
            "×".join(map(str, each.shape)) or "–",
            _figure(each.largest),
            _figure(each.mean),
            _figure(each.allowed),
            "same" if each.same else "differs",
        )
        for each in shown
    ]
    page.table(rows, "<>>>><", drop=(1,))
    answers = pair.answers if everything else pair.answers[:_OUTPUTS]
    for answer in answers:
        meaning = answer.meaning.replace("original", "reference")
        page.paragraph(f"{answer.metric} {numbers.percent(answer.after)}  ", f"{answer.name}: {meaning}")
    hidden = len(outputs) - len(shown) + len(pair.answers) - len(answers)
    if hidden:
        page.line("… ", f"{hidden} more lines: --all")


def _figure(value: float) -> str:
    return f"{value:.3g}" if value >= 1e-3 else numbers.error(value)

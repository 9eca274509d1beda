"""The report on a removal of single weights, for a terminal: how full the network is, and what is known of it."""

from __future__ import annotations

from pfpcli.records.parts import SparseLayer
from pfpcli.records.runs import SparseRun
from pfpcli.report import numbers, parts
from pfpcli.report.page import Page
from pfpcli.scoring.criteria import WEIGHT_CRITERIA

#: Layers shown before "… more, --all".
LAYERS = 12


def render(run: SparseRun, *, folder: str = "", width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """The report on one run.

    Args:
        run: the record.
        folder: where the run lies, as the user would write it.
        width: columns to fit in, 60 at least.
        everything: all layers, and how the run was made.
        unicode: use characters beyond ASCII.

    Returns:
        Lines such as

            PASS  model.pt: 30.0 % of the parameters are not zero (asked 30.0 %), all checks hold

                            before     after   change
              nonzeros     147.4 k    44.2 k  −70.0 %  of 147.4 k parameters
              deflated    547.2 kB  218.0 kB  −60.2 %  model.onnx, zlib level 9
              file (onnx) 592.2 kB  592.2 kB      0.0 %
              accuracy      95.2 %    93.1 %  −2.1 pp  top-1, 189 held-out images

              latency not measured: …

              layer       nonzeros  kept  bound  error
              7.0  82.9 k → 14.8 k  18 %  0.91   0.34
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    _figures(page, run)
    parts.checks(page, run)
    _layers(page, run, everything)
    parts.warnings(page, run)
    parts.made(page, run, everything)
    parts.files(page, run, folder)
    return page.text()


def summary(run: SparseRun, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """What a removal of weights ends with: the figures, the verdict and where to go from here."""
    page = Page(max(width, parts.NARROWEST), unicode)
    _figures(page, run)
    if run.status != "ok":
        parts.checks(page, run)
    page.space()
    page.paragraph("", verdict(run, page.width), indent=0)
    parts.wrote(page, folder)
    return page.text()


def verdict(run: SparseRun, width: int = 80) -> str:
    """Whether it worked, in one line.

    `PASS  model.pt: 30.0 % of the parameters are not zero (asked 30.0 %)`
    """
    asked, kept = numbers.percent(run.requested["keep"]), numbers.percent(run.achieved["keep"])
    if run.status != "ok":
        what = ", ".join(parts.failures(run)) or "a check did not hold"
        return parts.fitted(run.model["name"], "FAILED", f": {what} (asked {asked}, kept {kept})", width)
    return parts.fitted(run.model["name"], "PASS", f": {kept} of the parameters are nonzero (asked {asked})", width)


def _figures(page: Page, run: SparseRun) -> None:
    """The table before → after, and what it does not show."""
    before, after = run.before, run.after
    is_cut = before.params != after.params
    rows = [
        ("", "before", "after", "change", ""),
        _with(parts.row("nonzeros", numbers.count, before.nonzeros, after.nonzeros), "parameters that are not 0"),
        parts.row("parameters", numbers.count, before.params, after.params) if is_cut else None,
        parts.row("MACs", numbers.count, before.macs, after.macs) if is_cut else None,
        parts.row("file (onnx)", numbers.size, before.file_bytes, after.file_bytes),
        _with(
            parts.row("deflated", numbers.size, before.deflated_bytes, after.deflated_bytes), "that file, zlib level 9"
        ),
        *parts.quality(run.quality),
    ]
    page.space()
    page.annotated([row for row in rows if row], "<>>>")
    page.space()
    if not is_cut:
        page.paragraph(
            "", "latency  not measured: zeros in place are multiplied like other numbers, and nothing gets faster"
        )
    page.paragraph("dead channels  ", _dead(run))


def _with(row: parts.Row | None, remark: str) -> parts.Row | None:
    return row and (*row[:4], remark)


def _dead(run: SparseRun) -> str:
    dead, cut = run.dead["channels"], run.dead["cut"]
    if not dead:
        return "none: something reads every channel"
    if run.settings["cut_dead"]:
        return f"{dead} that nothing reads any more, {cut} of them cut off"
    return f"{dead} that nothing reads any more; --cut-dead cuts them off"


def _layers(page: Page, run: SparseRun, everything: bool) -> None:
    """How full each layer is, and how far off: those that lost most first."""
    ranked = sorted(run.layers, key=lambda layer: layer.nonzeros[1] - layer.nonzeros[0])
    shown = ranked if everything else ranked[:LAYERS]
    page.space()
    rows = [("layer", "weights", "nonzeros", "kept", "error bound", "measured")]
    rows += [
        (
            layer.name,
            numbers.count(layer.weights),
            " → ".join(numbers.count(each) for each in layer.nonzeros),
            numbers.share(layer.nonzeros[1] / layer.nonzeros[0]) if layer.nonzeros[0] else "–",
            _bound(layer),
            f"{layer.error:.3g}",
        )
        for layer in shown
    ]
    page.table(rows, "<>>>>>", shrink=0, drop=(1, 3))
    if len(ranked) > len(shown):
        page.paragraph("", f"… {len(ranked) - len(shown)} more, --all")
    chance = f", each with a chance of {run.scoring['delta']:g} to fail where weights were drawn" if _draws(run) else ""
    page.paragraph(
        "",
        "errors are the largest of any output, relative to |W| |a|: bounds on the images scored"
        f"{chance}; measured on the {run.quality.n} {run.quality.source}; a bound from 1 up says nothing (vacuous)",
    )


def _draws(run: SparseRun) -> bool:
    return WEIGHT_CRITERIA[run.scoring["criterion"]].form != "largest"


def _bound(layer: SparseLayer) -> str:
    if layer.bound is None:
        return "not known"
    return f"{layer.bound:.3g} vacuous" if layer.bound >= 1 else f"{layer.bound:.3g}"

"""The report on a run of `pfp sparsify`, for a terminal."""

from __future__ import annotations

from pfpcli.records.parts import SparseLayer
from pfpcli.records.runs import SparseRun
from pfpcli.report import numbers, parts
from pfpcli.report.page import Page

#: Number of layers shown, unless everything is.
LAYERS = 4


def render(run: SparseRun, *, folder: str = "", width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the report on a run.

    Args:
        run: the record.
        folder: the run folder, as the user would write it.
        width: number of columns, at least 60.
        everything: also show the checks, all layers, what the errors mean, and how the run was made.
        unicode: whether characters beyond ASCII may be used.

    Returns:
        Lines such as

            PASS  model.pt: 30.0 % of the parameters are nonzero (asked 30.0 %)

                            before     after   change
              nonzeros     147.4 k    44.2 k  −70.0 %  parameters that are not 0
              file (onnx) 592.2 kB  592.2 kB      0.0 %
              deflated    547.2 kB  218.0 kB  −60.2 %  that file, zlib level 9
              accuracy      95.2 %    93.1 %  −2.1 pp  top-1, 189 held-out images

              latency  not measured: zeros are multiplied like other numbers
              dead channels  none: something reads every channel

              layer  weights         nonzeros    kept  error bound  measured
              7.0     82.9 k  82.9 k → 14.8 k  17.9 %         0.91      0.34
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    parts.figures(page, figures(run))
    _notes(page, run, everything)
    if everything or run.status == "failed":
        parts.checks(page, run)
    ranked = sorted(run.layers, key=lambda layer: layer.nonzeros[1] - layer.nonzeros[0])
    _layers(page, ranked if everything else ranked[:LAYERS])
    if everything:
        _meaning_of_errors(page, run)
        parts.warnings(page, run, everything)
        parts.made(page, run)
        parts.facts(page, run)
        parts.files(page, run, folder)
    else:
        page.space()
        parts.missing_module(page, run)
        parts.warnings(page, run, everything)
        page.space()
        parts.files(page, run, folder)
        hidden = parts.more_layers(len(ranked) - LAYERS)
        parts.more(page, hidden, "checks", "meaning of the errors", "settings", "times")
    return page.text()


def summary(run: SparseRun, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """Return the last lines of `pfp sparsify`: the figures, the verdict and the next command."""
    page = Page(max(width, parts.NARROWEST), unicode)
    parts.figures(page, figures(run))
    _notes(page, run)
    if run.status == "failed":
        parts.checks(page, run)
    parts.closing(page, verdict(run, page.width), run, folder)
    return page.text()


def verdict(run: SparseRun, width: int = 80) -> str:
    """Return one line: `PASS  model.pt: 30.0 % of the parameters are nonzero (asked 30.0 %)`."""
    asked, kept = numbers.percent(run.requested["keep"]), numbers.percent(run.achieved["keep"])
    if run.status == "failed":
        rest = f": {parts.failures(run)} (asked {asked}, kept {kept})"
        return parts.fitted(run.model["name"], "FAILED", rest, width)
    if run.status == "worse":
        rest = f": {parts.fall(run.quality)} with {kept} nonzero (asked {asked})"
        return parts.fitted(run.model["name"], "WORSE", rest, width)
    return parts.fitted(run.model["name"], "PASS", f": {kept} of the parameters are nonzero (asked {asked})", width)


def figures(run: SparseRun, everything: bool = False) -> list[parts.Row]:
    """Return the rows of the table before → after, its heading first; all of them in either case."""
    before, after = run.before, run.after
    is_cut = before.params != after.params
    deflated = (before.deflated_bytes, after.deflated_bytes)
    rows = [
        ("", "before", "after", "change", ""),
        parts.row("nonzeros", numbers.count, before.nonzeros, after.nonzeros, "parameters that are not 0"),
        parts.row("parameters", numbers.count, before.params, after.params) if is_cut else None,
        parts.row("MACs", numbers.count, before.macs, after.macs) if is_cut else None,
        parts.row("file (onnx)", numbers.size, before.file_bytes, after.file_bytes),
        parts.row("deflated", numbers.size, *deflated, "that file, zlib level 9"),
        *parts.quality(run.quality),
    ]
    return [row for row in rows if row]


def _notes(page: Page, run: SparseRun, everything: bool = False) -> None:
    """Write why there is no latency, and which channels no layer reads any more."""
    page.space()
    for lead, text in notes(run, everything):
        page.paragraph(f"{lead}  ", text)


def notes(run: SparseRun, everything: bool = True) -> list[tuple[str, str]]:
    """Return (lead, text) for why there is no latency, and for the channels that no layer reads any more."""
    found = [("dead channels", _dead(run))]
    if run.before.params == run.after.params:
        whole = "zeros in place are multiplied like other numbers, and nothing gets faster"
        reason = whole if everything else "zeros are multiplied like other numbers"
        found.insert(0, ("latency", f"not measured: {reason}"))
    return found


def _dead(run: SparseRun) -> str:
    dead, cut = run.dead["channels"], run.dead["cut"]
    if not dead:
        return "none: something reads every channel"
    if run.settings["cut_dead"]:
        return f"{dead} that nothing reads any more, {cut} of them cut off"
    return f"{dead} that nothing reads any more; --cut-dead cuts them off"


def _layers(page: Page, shown: list[SparseLayer]) -> None:
    """Write how many weights of each layer are nonzero, and its error."""
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


def _bound(layer: SparseLayer) -> str:
    if layer.bound is None:
        return "not known"
    return f"{layer.bound:.3g} vacuous" if layer.bound >= 1 else f"{layer.bound:.3g}"


def _meaning_of_errors(page: Page, run: SparseRun) -> None:
    """Write what the errors are relative to, and on which images they hold."""
    # a record without a form was written before forms were recorded: its weights may have been drawn
    is_drawn = run.scoring.get("form") != "largest"
    chance = f", each with a chance of {run.scoring['delta']:g} to fail where weights were drawn" if is_drawn else ""
    page.paragraph(
        "",
        "errors are the largest of any output, relative to |W| |a|: bounds on the images scored"
        f"{chance}; measured on the {run.quality.n} {run.quality.source}; a bound from 1 up says nothing (vacuous)",
    )

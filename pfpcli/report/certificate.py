"""The errors of layers: a part of the report on a run of `pfp compress`, and the page of `pfp certify`."""

from __future__ import annotations

from pfpcli.records.certified import Certified
from pfpcli.records.parts import Certificate
from pfpcli.records.runs import Run
from pfpcli.report import numbers
from pfpcli.report.page import Page

#: Number of layers that `render` shows, unless everything is shown.
LAYERS = 4
#: A relative error is never larger than this, so a bound of this size says nothing.
VACUOUS = 1.0


def errors(page: Page, run: Run) -> None:
    """Write the errors of a run's layers, the largest first, and the change of the outputs.

    layer  read        Σ s    m        ε  at most  measured
    10     96 → 65    12.4  113  vacuous  vacuous     0.592
    7.0    96 → 92    36.1  372  vacuous    0.586     0.104
    """
    certificate = run.certificate
    if not certificate.layers:
        return
    page.space()
    when = " as they were cut, before recovery" if run.recovery else ""
    page.paragraph("", f"errors of layers{when}, relative to the sum of the sizes of their terms")
    page.table(rows(certificate), "<>>>>>>", drop=(2, 3, 1))
    for text in remarks(run):
        page.paragraph("", text)


def rows(certificate: Certificate) -> list[tuple[str, ...]]:
    """Return the rows of the table of errors: its heading, then the layers, those with the largest error first."""
    found: list[tuple[str, ...]] = [("layer", "read", "Σ s", "m", "ε", "at most", "measured")]
    found += [
        (
            row.name,
            f"{row.size} → {row.kept}",
            _figure(row.total),
            "–" if row.draws is None else numbers.count(row.draws),
            _bound(row.epsilon),
            _bound(row.bound),
            _figure(row.measured),
        )
        for row in sorted(certificate.layers, key=lambda row: -(row.measured or 0.0))
    ]
    return found


def remarks(run: Run) -> list[str]:
    """Return what the columns of that table mean, and how far the outputs moved."""
    certificate = run.certificate
    explained = _explained(certificate, run.scoring["reduce"])
    return [
        f"{explained}measured: on {certificate.images} {certificate.source}",
        f"the outputs moved by {_figure(run.quality.distance)} of their L2 norm; no bound is known for that",
    ]


def _explained(certificate: Certificate, reduce: str) -> str:
    """Return what the columns "at most" and "ε" mean, or why they are empty."""
    if all(row.total is None for row in certificate.layers):
        return "no bounds: the criterion measures no sensitivities; "
    if reduce != "sum":
        return "no bounds: shares of single weights (--reduce max) bound nothing; "
    return f"at most: on the images scored; ε: by m draws, with probability 1 − {numbers.error(certificate.delta)}; "


def render(found: Certified, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page of `pfp certify`.

    layer  at most  in the run  here
    10     vacuous       0.592  0.61
    7.0      0.586       0.104  0.12
    """
    page = Page(width, unicode)
    page.paragraph("", f"{found.model} against {found.run}, {found.images} images of {found.folder}", indent=0)
    page.space()
    ranked = sorted(found.layers, key=lambda row: -row.here)
    shown = ranked if everything else ranked[:LAYERS]
    rows = [("layer", "at most", "in the run", "here", "")]
    rows += [
        (
            row.name,
            _bound(row.bound),
            _figure(row.measured),
            _figure(row.here),
            "above the bound" if row.is_above else "",
        )
        for row in shown
    ]
    page.table(rows, "<>>><")
    if len(ranked) > len(shown):
        page.paragraph("", f"… {len(ranked) - len(shown)} more, --all")
    page.space()
    page.paragraph("", verdict(found), indent=0)
    return page.text()


def verdict(found: Certified) -> str:
    """Return one line that says whether the bounds hold on these images."""
    said = sum(row.is_said for row in found.layers)
    above = [row.name for row in found.layers if row.is_above]
    if above:
        return f"FAILED  {len(above)} of {said} bounds do not hold on these images: {', '.join(above)}"
    if not said:
        return f"PASS  none of {len(found.layers)} layers has a bound below 1"
    return f"PASS  all {said} bounds below 1 hold ({len(found.layers) - said} layers have none)"


def _bound(value: float | None) -> str:
    if value is None:
        return "–"
    return _figure(value) if value < VACUOUS else "vacuous"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"

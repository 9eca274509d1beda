"""The page of `pfp score`: the scores of groups and the sensitivities of layers."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from pfpcli.records.ranking import Ranking
from pfpcli.report.page import Page

#: Number of rows of a table, unless everything is shown.
ROWS = 12


def render(found: Ranking, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page of `pfp score`.

    model.pt: criterion pfp, sum over the kernel, 182 of 368 images in images

      group  channels  least  median   most
      0.0          32  0.311   0.654      1
      6.0          96  0.092   0.375  0.988

      layer  read   Σ s
      2.0      32  19.0
    """
    page = Page(width, unicode)
    images = found.calibration
    how = f"criterion {found.criterion}" + (f", {found.reduce} over the kernel" if found.layers else "")
    page.paragraph(
        "", f"{found.model['name']}: {how}, {found.samples} of {images['images']} images in {images['folder']}", 0
    )
    groups = [
        (group.name, str(len(group.score)), *map(_figure, (min(group.score), median(group.score), max(group.score))))
        for group in found.groups
    ]
    _table(page, ("group", "channels", "least", "median", "most"), groups, everything)
    layers = [
        (layer.name, str(len(layer.sensitivity)), _figure(sum(layer.sensitivity)), _figure(max(layer.sensitivity)))
        for layer in found.layers
    ]
    _table(page, ("layer", "read", "Σ s", "most"), layers, everything)
    return page.text()


def _table(page: Page, heading: tuple[str, ...], rows: Sequence[tuple[str, ...]], everything: bool) -> None:
    if not rows:
        return
    shown = rows if everything else rows[:ROWS]
    page.space()
    page.table([heading, *shown], "<" + ">" * (len(heading) - 1))
    if len(rows) > len(shown):
        page.paragraph("", f"… {len(rows) - len(shown)} more, --all")


def _figure(value: float) -> str:
    return f"{value:.3g}"

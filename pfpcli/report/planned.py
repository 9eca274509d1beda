"""The page of `pfp plan`: what a network would cost, and what each layer would keep."""

from __future__ import annotations

from pfpcli.amounts import noun_of
from pfpcli.records.planned import PlannedNetwork
from pfpcli.report import numbers, parts, run_groups, run_layers
from pfpcli.report.page import Page


def render(found: PlannedNetwork, *, width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the page of `pfp plan`.

    Args:
        found: the document.
        width: number of columns, at least 60.
        everything: whether to show all layers.
        unicode: whether characters beyond ASCII may be used.

    Returns:
        Lines such as

            model.pt: 40.1 % of the parameters (asked 40.0 %); nothing is cut

                          before    after   change
              parameters  147.4 k  59.2 k  −59.9 %
              MACs         20.8 M  11.0 M  −47.1 %

              layer  op           in       out            params   saved
              7.0    conv2d  96 → 69  96 →  28  82.9 k → 17.4 k  74.3 %

              not pruned: 2 groups, 11 channels: output of the model, input of the model
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    asked, kept = numbers.percent(found.requested["keep"]), numbers.percent(found.achieved["keep"])
    if found.requested["epsilon"] is not None:
        asked = f"ε = {found.requested['epsilon']:g}"
    asked = found.requested["amount"] or asked
    measure = noun_of(found.requested)
    page.paragraph("", f"{found.model['name']}: {kept} of the {measure} (asked {asked}); nothing is cut", 0)
    page.space()
    rows = [
        ("", "before", "after", "change", ""),
        parts.row("parameters", numbers.count, found.before.params, found.after.params),
        parts.row("MACs", numbers.count, found.before.macs, found.after.macs),
    ]
    page.annotated([row for row in rows if row], "<>>>")
    if everything:
        run_layers.all_layers(page, found)
    else:
        hidden = run_layers.largest(page, found)
    page.space()
    run_groups.not_pruned_in_short(page, found.groups)
    run_groups.inexact_in_short(page, found.groups)
    if not everything and hidden:
        parts.more(page, parts.more_layers(hidden))
    return page.text()

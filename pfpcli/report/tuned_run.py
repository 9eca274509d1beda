"""The report on a run of `pfp finetune`, for a terminal."""

from __future__ import annotations

from pfpcli.records.runs import TunedRun
from pfpcli.report import numbers, parts
from pfpcli.report.page import Page


def render(run: TunedRun, *, folder: str = "", width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """Return the report on a run.

    Args:
        run: the record.
        folder: the run folder, as the user would write it.
        width: number of columns, at least 60.
        everything: also show the checks and how the run was made.
        unicode: whether characters beyond ASCII may be used.

    Returns:
        Lines such as

            PASS  model-keep0.40: accuracy 56.5 % → 93.4 %

                        before  fine-tuned    change
              accuracy  56.5 %      93.4 %  +36.9 pp  top-1, 122 held-out images

              the network: 59.2 k parameters (40.2 % of model.pt), 11.8 M MACs (57.0 %)
              trained: 30 epochs of 205 images in 21.3 s, learning rate 0.02; accuracy
                       61.0 % → 95.1 % on 41 other images, which chose the weights
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    parts.figures(page, figures(run))
    _training(page, run)
    if everything or run.status == "failed":
        parts.checks(page, run)
    else:
        parts.missing_module(page, run)
    parts.warnings(page, run, everything)
    page.space()
    if everything:
        parts.preprocessing(page, run)
        parts.facts(page, run)
    parts.files(page, run, folder)
    if not everything:
        parts.more(page, "checks", "preprocessing", "settings", "times")
    return page.text()


def summary(run: TunedRun, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """Return the last lines of `pfp finetune`: the figures, the verdict and the next command."""
    page = Page(max(width, parts.NARROWEST), unicode)
    parts.figures(page, figures(run))
    parts.closing(page, verdict(run, page.width), run, folder)
    return page.text()


def verdict(run: TunedRun, width: int = 80) -> str:
    """Return one line: `PASS  model-keep0.40: accuracy 56.5 % → 93.4 %`."""
    before, after = numbers.percent(run.quality.before), numbers.percent(run.quality.after)
    said = f"accuracy {before} → {after}" if run.training.has_helped else "nothing changed: training did not help"
    return parts.fitted(run.run, "PASS", f": {said}", width)


def figures(run: TunedRun, everything: bool = False) -> list[parts.Row]:
    """Return the rows of the table before → after, its heading first; all of them in either case."""
    found = run.quality
    return [
        ("", "before", "fine-tuned", "change", ""),
        (
            "accuracy",
            numbers.percent(found.before),
            numbers.percent(found.after),
            numbers.points(found.before, found.after),
            f"top-1, {found.n} {found.source}",
        ),
    ]


def _training(page: Page, run: TunedRun) -> None:
    """Write the cost of the network, and how it was trained."""
    page.space()
    for lead, text in notes(run):
        page.paragraph(f"{lead}: ", text)


def notes(run: TunedRun) -> list[tuple[str, str]]:
    """Return (lead, text) for the cost of the network, and for its training."""
    shares = [numbers.percent(run.after.params / run.before.params), numbers.percent(run.after.macs / run.before.macs)]
    network = (
        f"{numbers.count(run.after.params)} parameters ({shares[0]} of {run.model['name']}), "
        f"{numbers.count(run.after.macs)} MACs ({shares[1]})"
    )
    made = run.training
    before, after = map(numbers.percent, made.accuracy)
    taught = f", and from {made.teacher} with weight {made.weight:g}" if made.teacher else ""
    trained = (
        f"{made.epochs:g} epochs of {made.images} images in {numbers.seconds(made.seconds)}, learning rate "
        f"{run.settings['lr']:g}{taught}; accuracy {before} → {after} on {made.checked} other images, which chose the "
        "weights"
    )
    return [("the network", network), ("trained", trained)]

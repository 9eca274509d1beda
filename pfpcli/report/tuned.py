"""The report on a fine-tuning, for a terminal: how accurate the network was and is, and what it took."""

from __future__ import annotations

from pfpcli.records.runs import TunedRun
from pfpcli.report import numbers, parts
from pfpcli.report.page import Page


def render(run: TunedRun, *, folder: str = "", width: int = 80, everything: bool = False, unicode: bool = True) -> str:
    """The report on one run.

    Args:
        run: the record.
        folder: where the run lies, as the user would write it.
        width: columns to fit in, 60 at least.
        everything: how the run was made as well.
        unicode: use characters beyond ASCII.

    Returns:
        Lines such as

            PASS  model-keep0.40: accuracy 56.5 % → 93.4 %

                        before  fine-tuned    change
              accuracy  56.5 %      93.4 %  +36.9 pp  top-1, 122 held-out images

              the network: 59.2 k parameters (40.2 % of model.pt), 11.8 M MACs (57.0 %)
              trained: 30 epochs of 205 images in 21.3 s, learning rate 0.02; what stays
              is right on 95.1 % of 41 others, it was 61.0 %
    """
    page = Page(max(width, parts.NARROWEST), unicode)
    page.paragraph("", verdict(run, page.width), indent=0)
    _figures(page, run)
    _training(page, run)
    parts.checks(page, run)
    parts.warnings(page, run)
    page.space()
    page.paragraph("", run.calibration["preprocess"].get("describe", ""))
    if everything:
        parts.facts(page, run)
    parts.files(page, run, folder)
    return page.text()


def summary(run: TunedRun, *, folder: str = "", width: int = 80, unicode: bool = True) -> str:
    """What a fine-tuning ends with: the figures, the verdict and where to go from here."""
    page = Page(max(width, parts.NARROWEST), unicode)
    _figures(page, run)
    page.space()
    page.paragraph("", verdict(run, page.width), indent=0)
    parts.wrote(page, folder)
    return page.text()


def verdict(run: TunedRun, width: int = 80) -> str:
    """Whether it worked, in one line: `PASS  model-keep0.40: accuracy 56.5 % → 93.4 %`."""
    before, after = numbers.percent(run.quality.before), numbers.percent(run.quality.after)
    said = f"accuracy {before} → {after}" if run.training.has_helped else "nothing changed: training did not help"
    return parts.fitted(run.run, "PASS", f": {said}", width)


def _figures(page: Page, run: TunedRun) -> None:
    """The accuracy before and after."""
    found = run.quality
    page.space()
    rows = [
        ("", "before", "fine-tuned", "change", ""),
        (
            "accuracy",
            numbers.percent(found.before),
            numbers.percent(found.after),
            numbers.points(found.before, found.after),
            f"top-1, {found.n} {found.source}",
        ),
    ]
    page.annotated(rows, "<>>>")


def _training(page: Page, run: TunedRun) -> None:
    """What was trained, and how long."""
    page.space()
    shares = [numbers.percent(run.after.params / run.before.params), numbers.percent(run.after.macs / run.before.macs)]
    page.paragraph(
        "the network: ",
        f"{numbers.count(run.after.params)} parameters ({shares[0]} of {run.model['name']}), "
        f"{numbers.count(run.after.macs)} MACs ({shares[1]})",
    )
    made, (before, after) = run.training, run.training.accuracy
    taught = f", and from {made.teacher} with weight {made.weight:g}" if made.teacher else ""
    stays = f"right on {numbers.percent(after)} of {made.checked} others, it was {numbers.percent(before)}"
    page.paragraph(
        "trained: ",
        f"{made.epochs:g} epochs of {made.images} images in "
        f"{numbers.seconds(made.seconds)}, learning rate {run.settings['lr']:g}{taught}; what stays is {stays}",
    )

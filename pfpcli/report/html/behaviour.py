"""What changed in behaviour: the quality of each output, the classes that lost most, the images that changed most."""

from __future__ import annotations

from pfpcli.records.details import Behaviour, ChangedImage, ClassCount
from pfpcli.records.parts import OutputQuality
from pfpcli.records.robustness import Robustness
from pfpcli.records.runs import AnyRun
from pfpcli.report import numbers, robustness
from pfpcli.report.html.views import Cell, Changed, Column, Row, Table

#: The most classes that are shown.
CLASSES = 100
#: The pictures of outputs, in the order of `ChangedImage.maps`.
_MAPS = ("before", "after", "difference")


def outputs(run: AnyRun) -> Table | None:
    """Return the quality of each output, worst first; None for older records."""
    found = run.quality.outputs
    if not found:
        return None
    columns = [
        Column("output"),
        Column("metric"),
        Column("before", True),
        Column("after", True),
        Column("change", True),
        Column("meaning", is_prose=True),
        Column("says", is_prose=True),
        Column("further measures", is_prose=True),
    ]
    where = f"on {run.quality.n} {run.quality.source}"
    return Table("outputs", columns, [_output(each) for each in found], (), [where])


def _output(found: OutputQuality) -> Row:
    more = ", ".join(f"{name} {value:.4g}" for name, value in found.measures.items())
    return Row(
        [
            Cell(found.name),
            Cell(found.metric),
            Cell(numbers.percent(found.before), found.before),
            Cell(numbers.percent(found.after), found.after, 100 * found.after),
            Cell(numbers.points(found.before, found.after), found.after - found.before),
            Cell(found.meaning),
            Cell(f"{found.role}: {found.why}"),
            Cell(more),
        ]
    )


def classes(found: Behaviour) -> Table | None:
    """Return what became of each class, worst first; None where outputs have no classes."""
    if not found.classes:
        return None
    of = "by their label" if found.labelled else "as the original decides"
    columns = [
        Column("class"),
        Column(found.counted, True),
        Column("found before", True),
        Column("found after", True),
        Column("change", True),
    ]
    remarks = [f"{found.counted} of a class: {of}; found: the share of them that the network puts into the class"]
    if len(found.classes) > CLASSES:
        remarks.append(f"{len(found.classes) - CLASSES} more classes lost no larger share")
    return Table("classes", columns, [_class(each) for each in found.classes[:CLASSES]], (), remarks)


def _class(found: ClassCount) -> Row:
    before, after = found.before / found.count, found.after / found.count
    return Row(
        [
            Cell(found.name),
            Cell(numbers.count(found.count), found.count),
            Cell(numbers.share(before), before, 100 * before),
            Cell(numbers.share(after), after, 100 * after),
            Cell(numbers.points(before, after), after - before),
        ],
        found.before == found.after,
    )


def damaged(found: Robustness) -> Table:
    """Return the quality on damaged images: a row for each corruption, a column for each strength."""
    heading, *rows = robustness.rows(found, everything=True)
    columns = [Column(heading[0]), *(Column(f"strength {strength}", True) for strength in heading[1:])]
    remarks = [robustness.conditions(found), robustness.sentence(found)]
    return Table("damaged", columns, [Row([Cell(text) for text in row]) for row in rows], (), remarks)


def changed(found: Behaviour) -> list[Changed]:
    """Return the images that changed most, the first one most."""
    return [_image(each) for each in found.changed]


def _image(found: ChangedImage) -> Changed:
    return Changed(
        found.name,
        _trusted(found.picture),
        found.before,
        found.after,
        found.truth,
        f"{found.change:.3g}",
        [(name, uri) for name, uri in zip(_MAPS, map(_trusted, found.maps), strict=False) if uri],
    )


def _trusted(uri: str) -> str:
    """Return a data URI of a picture; "" for anything else, which a stranger may have put into details.json."""
    return uri if uri.startswith(("data:image/jpeg;base64,", "data:image/png;base64,")) else ""

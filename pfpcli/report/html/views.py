"""Views: what the templates of the page show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Chip:
    """A short statement in a frame.

    Attributes:
        state: "good", "bad" or "plain".
        name: what it is about.
        text: the finding, with its number and tolerance.
    """

    state: str
    name: str
    text: str


@dataclass(frozen=True)
class Cell:
    """A cell of a table.

    Attributes:
        text: what it says.
        order: the number by which rows are sorted; None sorts by the text.
        bar: length of a bar behind the text, 0 to 100; None draws none.
        link: the address that it leads to; "" leads nowhere.
    """

    text: str
    order: float | None = None
    bar: float | None = None
    link: str = ""


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: its heading.
        is_number: whether its cells are numbers, which stand at the right.
        is_prose: whether its cells are sentences, which need some width.
    """

    name: str
    is_number: bool = False
    is_prose: bool = False


@dataclass(frozen=True)
class Row:
    """A row of a table: its cells, and whether it is the same as in the original."""

    cells: Sequence[Cell]
    is_unchanged: bool = False


@dataclass(frozen=True)
class Table:
    """A table that can be sorted, and filtered where it is long.

    Attributes:
        name: its identifier in the page.
        columns: the headings.
        rows: the rows.
        totals: a last row that stays in its place, or nothing.
        remarks: what the columns mean.
        hide: what the box says that hides the rows which are the same as in the original.
    """

    name: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    totals: Sequence[Cell] = ()
    remarks: Sequence[str] = ()
    hide: str = "hide what did not change"

    @property
    def is_long(self) -> bool:
        """Whether a filter helps."""
        return len(self.rows) > 8

    @property
    def has_unchanged(self) -> bool:
        """Whether some rows, but not all, are the same as in the original."""
        return 0 < sum(row.is_unchanged for row in self.rows) < len(self.rows)


@dataclass(frozen=True)
class Mark:
    """A text on a drawing, at a position in pixels."""

    x: float
    y: float
    text: str


@dataclass(frozen=True)
class Bar:
    """A bar of a drawing, in pixels from its left and upper edge; title: what it stands for."""

    x: float
    y: float
    width: float
    height: float
    title: str


@dataclass(frozen=True)
class Skeleton:
    """The widths of all layers.

    Attributes:
        width, height: size of the drawing in pixels.
        base: the row on which the bars stand.
        before, after: the outline of the original's bars and the area of the result's, as paths.
        bars: for each layer the space that it takes, with its name and widths.
        unlucky: marks above bars whose width is slower than its neighbours.
        names: the names or numbers of layers below the bars.
        lines: the heights of lines of equal width, with their widths.
        is_dense: whether there are too many layers for their names and for outlines.
    """

    width: int
    height: int
    base: int
    before: str
    after: str
    bars: Sequence[Bar]
    unlucky: Sequence[Mark]
    names: Sequence[Mark]
    lines: Sequence[Mark]
    is_dense: bool


@dataclass(frozen=True)
class GroupView:
    """Why a group keeps the channels that it keeps.

    Attributes:
        name, widths: its name, and `96 → 24 channels`.
        kept, dropped: the areas of the sorted scores, as paths; "" where there are none.
        cut: the column of the cut line; None where there is none.
        highest: the highest score.
        curve: the measured losses as a path; "" where there are none.
        losses: the same as a text.
        chosen: the column of the chosen width.
    """

    name: str
    widths: str
    kept: str
    dropped: str
    cut: float | None
    highest: str
    curve: str = ""
    losses: str = ""
    chosen: float = 0.0


@dataclass(frozen=True)
class Changed:
    """An image whose answer changed.

    Attributes:
        name: its file, or "".
        picture: a data URI, or "".
        before, after, truth: the answers and the label, or "".
        change: how far the answers are apart.
        maps: (name, data URI) of the pictures of the outputs.
    """

    name: str
    picture: str
    before: str
    after: str
    truth: str
    change: str
    maps: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Reasons:
    """Channels by reason.

    Attributes:
        title: what happened to them.
        rows: (number of channels, the reason, the names of the groups).
    """

    title: str
    rows: Sequence[tuple[str, str, str]]


@dataclass(frozen=True)
class Facts:
    """Names with what is known about them, in a list.

    Attributes:
        title: of the list.
        rows: (name, fact).
    """

    title: str
    rows: Sequence[tuple[str, str]] = field(default_factory=tuple)


@dataclass(frozen=True)
class Point:
    """A network on a scatter.

    Attributes:
        x, y: its place in pixels.
        state: "front", "other", "failed" or "original".
        path: its mark around (0, 0).
        title: its name and figures.
        link: address of the page of its run; "" where there is none.
    """

    x: float
    y: float
    state: str
    path: str
    title: str
    link: str


@dataclass(frozen=True)
class Scatter:
    """The quality of several networks against one of their costs.

    Attributes:
        width, height: size of the drawing in pixels.
        left, right, top, bottom: the frame in which the points lie.
        name: the cost.
        x_axis, y_axis: names of the axes, with their units.
        columns, rows: the ticks of the axes.
        front: the line through the points on the front, as a path; "" where there are fewer than two.
        joins: the lines from runs to their files of lower precision, as a path; "" where there are none.
        points: the networks; those that matter most come last, above the others.
        labels: the numbers of runs beside their points, as far as they fit.
    """

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    name: str
    x_axis: str
    y_axis: str
    columns: Sequence[Mark]
    rows: Sequence[Mark]
    front: str
    joins: str
    points: Sequence[Point]
    labels: Sequence[Mark]


@dataclass(frozen=True)
class Link:
    """A text, and the address that it leads to; "" leads nowhere."""

    text: str
    to: str


@dataclass(frozen=True)
class Descent:
    """What some runs were made from.

    Attributes:
        made: the runs.
        how: what was done, e.g. "cut by the plan of".
        source: the run or the sweep that they were made from.
    """

    made: Sequence[Link]
    how: str
    source: Link

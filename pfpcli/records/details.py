"""The details of a run, details.json: what the page of a run shows beyond its record.

The record stays small; scores, curves and small pictures lie here. A run without details is complete, too: its page
then lacks these sections.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pfpcli.records.document import Document


@dataclass
class GroupScores:
    """The scores of a group.

    Attributes:
        name: the layer that computes the channels, as in `GroupRow`.
        scores: one for each unit, in the order of the channels; higher means keep.
        dropped: the indices of the units that were dropped.
    """

    name: str
    scores: list[float]
    dropped: list[int]


@dataclass
class GroupCurve:
    """What the network loses when one group is cut to a few widths and all other groups keep everything.

    Attributes:
        name: the layer that computes the channels, as in `GroupRow`.
        positions: the largest width.
        kept: the widths that were measured, in descending order.
        losses: name of a loss -> its value at each of these widths.
    """

    name: str
    positions: int
    kept: list[int]
    losses: dict[str, list[float]]


@dataclass
class ClassCount:
    """What became of one class.

    Attributes:
        name: name of the class, or its number.
        count: number of images, pixels or steps of the class.
        before, after: how many of them the original and the result put into the class.
    """

    name: str
    count: int
    before: int
    after: int


@dataclass
class ChangedImage:
    """An image whose output changed more than that of most others.

    Attributes:
        name: the file inside of the folder of images; "" where it is not known.
        picture: the image as the network sees it, a data URI; "" where it is no picture.
        before, after: the answers of the original and of the result, for people.
        truth: the label of the image; "" where there is none.
        change: how far the answers are apart; the unit is that of `Behaviour.measure`.
        maps: pictures of the two outputs and of their difference, data URIs; empty where outputs are no pictures.
    """

    name: str
    picture: str
    before: str
    after: str
    truth: str
    change: float
    maps: list[str] = field(default_factory=list)


@dataclass
class Behaviour:
    """What a network does otherwise than the original, on the images that judge it.

    Attributes:
        output: name of the output that classes and changes are about.
        measure: what `ChangedImage.change` is, in a few words.
        counted: what is counted for each class: "images", "pixels" or "steps"; "" where there are no classes.
        labelled: whether the classes are those of the labels; otherwise they are those that the original finds.
        differ: number of images whose answer differs; None where answers are no decisions.
        images: number of images.
        classes: the classes that occur, those first that lost the largest share.
        changed: the images that changed most, the first one most.
    """

    output: str
    measure: str
    counted: str
    labelled: bool
    differ: int | None
    images: int
    classes: list[ClassCount]
    changed: list[ChangedImage]


@dataclass
class Details(Document):
    """The details of a run.

    Attributes:
        groups: the scores of the groups that could lose units; empty where channels were not scored.
        curves: the curves of these groups; empty where none were measured.
        behaviour: what the network does otherwise; None where nothing can be said.
        schema_version: version of the fields. 1: the first one.
    """

    groups: list[GroupScores] = field(default_factory=list)
    curves: list[GroupCurve] = field(default_factory=list)
    behaviour: Behaviour | None = None
    schema_version: int = 1

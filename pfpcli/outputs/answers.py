"""Answers: what a network says about an image, how far two answers are apart, and how they are shown to people."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs import thumbnails
from pfpcli.outputs.kinds import KINDS
from pfpcli.outputs.kinds.kind import TINY

#: The most numbers or classes of an answer that are shown.
_SHOWN = 4


@dataclass(frozen=True)
class Answer:
    """An answer of one network about one image.

    Attributes:
        text: the answer for people; "" where it is a picture.
        value: the picture: a map of classes int64[H, W] or values float[C, H, W]; None where it is a text.
    """

    text: str
    value: Tensor | None = None


class Answers(ABC):
    """The answers of one kind of output.

    Attributes:
        measure: what the distance of two answers is.
        is_picture: whether answers are pictures.
    """

    measure: str
    is_picture = False

    def __init__(self, role: Role, names: Sequence[str]) -> None:
        self.role = role
        self.names = names

    @abstractmethod
    def distances(self, before: Tensor, after: Tensor) -> Tensor:
        """Return how far the answers about each image are apart: float[N]."""

    @abstractmethod
    def answer(self, output: Tensor) -> Answer:
        """Return the answer about one image, from its part of the output: float[...]."""

    def maps(self, before: Answer, after: Answer) -> list[str]:
        """Return pictures of two answers and of their difference; none where answers are texts."""
        return []

    def name(self, number: int) -> str:
        """Return the name of a class."""
        return self.names[number] if number < len(self.names) else str(number)


class OneClass(Answers):
    """A class for each image: float[N, classes]."""

    measure = "images with another class first, then by the distance of the probabilities (total variation, 0 to 1)"

    def distances(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the total variation of the probabilities, and one more where the classes differ."""
        apart = (self._probabilities(before) - self._probabilities(after)).abs().sum(1) / 2
        return apart + (before.argmax(1) != after.argmax(1))

    def answer(self, output: Tensor) -> Answer:
        """Return the class and its probability."""
        found = self._probabilities(output[None])[0]
        best = int(output.argmax())
        return Answer(f"{self.name(best)} ({100 * float(found[best]):.0f} %)")

    def _probabilities(self, output: Tensor) -> Tensor:
        found = output.float() if self.role.kind == "probabilities" else output.float().softmax(1)
        return found.nan_to_num()


class ClassMap(Answers):
    """A class for each pixel: float[N, ..., classes, ...]."""

    measure = "share of the pixels that have another class"
    is_picture = True

    def distances(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the share of pixels with another class."""
        first, second = (x.argmax(self.role.axis or 1).flatten(1) for x in (before, after))
        return (first != second).float().mean(1)

    def answer(self, output: Tensor) -> Answer:
        """Return the map of classes."""
        return Answer("", thumbnails.reduced_map(output.argmax((self.role.axis or 1) - 1)))

    def maps(self, before: Answer, after: Answer) -> list[str]:
        """Return both maps, and where they differ."""
        assert before.value is not None
        assert after.value is not None
        first, second = before.value.numpy(), after.value.numpy()
        both = [thumbnails.class_picture(each) for each in (first, second)]
        return [*both, thumbnails.mask_picture(first != second)]


class Picture(Answers):
    """A picture or a map of scores for each image: float[N, 1 or 3, H, W]."""

    measure = "distance of the pictures, relative to the original's (L2)"
    is_picture = True

    def distances(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the relative L2 distance of each image."""
        return _relative(before, after)

    def answer(self, output: Tensor) -> Answer:
        """Return the picture."""
        return Answer("", thumbnails.reduced(output.float().nan_to_num()))

    def maps(self, before: Answer, after: Answer) -> list[str]:
        """Return both pictures in the range of the original's, and their absolute difference, the largest in white."""
        assert before.value is not None
        assert after.value is not None
        low, high = float(before.value.min()), float(before.value.max())
        scale = 255 / ((high - low) or 1.0)
        apart = (after.value - before.value).abs()
        shown = [(each - low) * scale for each in (before.value, after.value)]
        shown.append(apart * (255 / (float(apart.max()) or 1.0)))
        return [thumbnails.picture(each.double().numpy()) for each in shown]


class Numbers(Answers):
    """Numbers of any other meaning: float[N, ...]."""

    measure = "distance of the outputs, relative to the original's (L2)"

    def distances(self, before: Tensor, after: Tensor) -> Tensor:
        """Return the relative L2 distance of each image."""
        return _relative(before, after)

    def answer(self, output: Tensor) -> Answer:
        """Return the first numbers, or the first classes of a row of steps."""
        if self.role.axis is not None and output.dim() == 2:
            steps = output.argmax(self.role.axis - 1)
            return Answer(_list([self.name(each) for each in torch.unique_consecutive(steps).tolist()]))
        return Answer(_list([f"{each:.3g}".replace("-", "−") for each in output.flatten()[: _SHOWN + 1].tolist()]))


def answers(role: Role, shape: Sequence[int], names: Sequence[str]) -> Answers:
    """Return the answers of an output.

    Args:
        role: of the output.
        shape: of the output.
        names: names of the classes, in the order of the outputs; empty or too few where they are not known.
    """
    has_classes = KINDS[role.kind].has_classes
    # the class folders of images may be some of a network's classes: then it is not known which
    names = names if has_classes and len(names) == shape[role.axis or 1] else ()
    if has_classes and len(shape) == 2:
        return OneClass(role, names)
    if has_classes and len(shape) == 4:
        return ClassMap(role, names)
    if role.kind in ("image", "sigmoid") and len(shape) == 4 and shape[1] in (1, 3):
        return Picture(role, names)
    return Numbers(role, names)


def _relative(before: Tensor, after: Tensor) -> Tensor:
    """Return the L2 distance of each row, relative to the first: float[N]; numbers that are not finite count as 0."""
    first, second = (x.float().flatten(1).nan_to_num(0, 0, 0) for x in (before, after))
    found: Tensor = (second - first).norm(dim=1) / first.norm(dim=1).clamp_min(TINY)
    return found


def _list(texts: Sequence[str]) -> str:
    return ", ".join([*texts[:_SHOWN], *(["…"] if len(texts) > _SHOWN else [])])

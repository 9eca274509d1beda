"""Evidence: what the values of an output on a few images say about it."""

from __future__ import annotations

from torch import Tensor

#: Rows sum to 1, and norms are 1, within this.
_SUM = 1e-3
#: Scores of classes are sure of one: above chance by this fraction of what is left, on average.
_SURE = 0.2
#: Scores of this share of the rows are below 0 for some classes and above 0 for others.
_SIGNED = 0.5
#: The background is the class of this share of the places of a detector.
_BACKGROUND = 0.9
#: Scores of objects, before a sigmoid: this share of them is below 0, and their mean probability is at most the other.
_NO, _RARE = 0.99, 0.05


def class_axis(x: Tensor, axis: int | None) -> int | None:
    """The dimension of the classes of an output of a layer; the given one, else 1 or the last one."""
    if x.dim() < 2:
        return None
    axis = axis if axis is not None else (1 if x.dim() == 2 else None)
    return axis if axis is not None and axis > 0 and x.shape[axis] > 1 else None


def are_probabilities(x: Tensor) -> int | None:
    """Return the dimension along which the values are probabilities that sum to 1; None if there is none."""
    if x.dim() < 2 or not x.numel() or not x.isfinite().all() or x.min() < -_SUM or x.max() > 1 + _SUM:
        return None
    for axis in dict.fromkeys((1, x.dim() - 1)):
        if x.shape[axis] > 1 and bool(((x.sum(axis) - 1).abs() < _SUM).all()):
            return axis
    return None


def are_unit_vectors(x: Tensor) -> bool:
    """Whether each row has norm 1: float[N, D] with more than four numbers in a row."""
    return x.dim() == 2 and x.shape[1] > 4 and bool(((x.norm(dim=1) - 1).abs() < _SUM).all())


def are_class_scores(x: Tensor, axis: int) -> bool:
    """Whether numbers behave like the scores of classes of a trained network.

    A softmax of them is sure of a class far more often than chance, and rows hold numbers on both sides of 0. Features
    behind a ReLU, coordinates between 0 and 1 and outputs of random weights do not.

    Args:
        x: float[N, ...].
        axis: the dimension of the classes.
    """
    rows = _rows(x, axis)
    if not len(rows):
        return False
    signed = float(((rows.amin(1) < 0) & (rows.amax(1) > 0)).float().mean())
    return sureness(x, axis) >= _SURE and signed >= _SIGNED


def sureness(x: Tensor, axis: int) -> float:
    """Return how sure a softmax of numbers is of one class, on average: 0 as chance is, 1 for certain; 0 of one class.

    Args:
        x: float[N, ...].
        axis: the dimension of the classes.
    """
    rows = _rows(x, axis)
    if not len(rows) or rows.shape[1] < 2:
        return 0.0
    chance = 1 / rows.shape[1]
    return (float(rows.softmax(1).amax(1).mean()) - chance) / (1 - chance)


def have_background(x: Tensor, axis: int) -> bool:
    """Whether one class, the same for all anchors, is the best one at nearly all places of each anchor.

    Args:
        x: float[N, ..., A, K, ...], the scores of K classes of A anchors.
        axis: the dimension of the classes; the anchors are in front of it.
    """
    best = x.argmax(axis).movedim(axis - 1, 0).flatten(1)
    background = best.flatten().mode().values
    return bool(((best == background).float().mean(1) >= _BACKGROUND).all())


def _rows(x: Tensor, axis: int) -> Tensor:
    """The numbers of each place that are all finite: float[places, classes]."""
    rows = x.movedim(axis, -1).flatten(0, -2).float()
    return rows[rows.isfinite().all(1)]


def are_rare(x: Tensor) -> bool:
    """Whether numbers behave like scores of objects before a sigmoid: nearly all of them say no."""
    finite = x[x.isfinite()].float()
    return bool(len(finite)) and float((finite < 0).float().mean()) >= _NO and float(finite.sigmoid().mean()) <= _RARE


def is_picture(shape: tuple[int, ...], image: tuple[int, ...]) -> bool:
    """Whether an output has the channels of the input image, at its size or a multiple of it: N×C×H×W."""
    if len(shape) != 4 or len(image) != 4 or shape[1] not in (1, 3, 4) or shape[1] != image[1]:
        return False
    ratios = [size // of for size, of in zip(shape[2:], image[2:], strict=True)]
    return ratios[0] == ratios[1] >= 1 and all(
        size == ratio * of for size, of, ratio in zip(shape[2:], image[2:], ratios, strict=True)
    )

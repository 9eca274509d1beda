"""Fall: how far the quality falls from one network to another, with a confidence interval for so few images.

Both networks see the same images, so the differences are paired. The share of image i of n in a fall f is

    p_i = n f - (n - 1) f_i        f_i: the fall without image i

the pseudo-value of the jackknife. Where the metric is a mean over images (accuracy, agreement, SSIM), p_i is the
difference of its two values on image i; ratios of sums (overlaps, distances, IoU) have a p_i as well. Each end of the
95 % interval of a fall between -1 and 1 is

    (P ± 2) / (n + 4)  ±  1.96 sqrt(Q + 2 - (P ± 2)² / (n + 4)) / (n + 4)        P = sum of p_i, Q = sum of p_i²

which is the interval of n + 4 images: two of those that are added fall (or rise) completely, two not at all. So no
images without a difference promise little if they are few. A fall in decibels has no limits, and no images are added.

Sources: Efron, The Jackknife, the Bootstrap and Other Resampling Plans, SIAM 1982, chapter 2; Agresti and Coull,
Approximate is Better than "Exact" for Interval Estimation of Binomial Proportions, The American Statistician 1998, for
the images that are added.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pfpcli import processes
from pfpcli.errors import InputError
from pfpcli.graph.graph import Graph
from pfpcli.outputs.quality import Tallies
from pfpcli.outputs.roles import real, roles_of, select
from pfpcli.records.parts import Quality
from pfpcli.records.searched import Fall

#: The normal quantile of a 95 % interval, the images that are added at an end, and those that do not change.
QUANTILE, CHANGED, UNCHANGED = 1.96, 2, 2

#: The sums of one image, for each output.
_Sums = list[dict[str, Any]]


def fall(
    before: Graph,
    after: Graph,
    batches: Iterable[tuple[Tensor, NDArray[Any] | None]],
    source: str,
    device: torch.device | str = "cpu",
    *,
    decibels: bool = False,
) -> tuple[Quality, Fall]:
    """Compare two networks image by image.

    Args:
        before: the original; its roles decide.
        after: the other network.
        batches: (float[N, ...], labels of any kind or None).
        source: the name of the images.
        device: where to compute.
        decibels: measure the PSNR to target pictures, not the metric of the headline.

    Returns:
        The quality, and the fall of its headline. Images without which it has no headline are left out of the interval.

    Raises:
        InputError: there are no decibels to measure.
    """
    tallies = Tallies.of(before)
    sums = [each for some in processes.gathered(_by_image(before, after, batches, device, tallies)) for each in some]
    quality = tallies.quality(source)
    total = _added(sums)
    pair = _before_after(quality, quality.output, decibels=decibels)
    if pair is None:
        raise InputError("no output has target pictures", "say --max-drop as a part of the quality, e.g. 1%")
    whole = pair[0] - pair[1]
    pseudo = []
    for each in sums if len(sums) > 1 else []:
        tallies.recount(_without(total, each))
        left = _before_after(tallies.judged(source), quality.output, decibels=decibels)
        if left is not None:
            pseudo.append(len(sums) * whole - (len(sums) - 1) * (left[0] - left[1]))
    ends = interval(np.asarray(pseudo), bounded=not decibels)
    low, high = (None, None) if ends is None else (min(ends[0], whole), max(ends[1], whole))
    metric, unit = ("PSNR", "dB") if decibels else (quality.metric, "pp")
    return quality, Fall(metric, unit, *pair, low, high, quality.n, source)


def interval(pseudo: NDArray[np.float64], *, bounded: bool = True) -> tuple[float, float] | None:
    """Return the 95 % confidence interval of a fall; None for a fall without limits on a single image.

    Args:
        pseudo: float64[n], the share of each image.
        bounded: whether a fall lies between -1 and 1.
    """
    n = len(pseudo)
    if bounded:
        return -_end(-pseudo), _end(pseudo)
    if n < 2:
        return None
    by = QUANTILE * float(pseudo.std(ddof=1)) / math.sqrt(n)
    return float(pseudo.mean()) - by, float(pseudo.mean()) + by


def _end(pseudo: NDArray[np.float64]) -> float:
    """The upper end of the interval of a fall between -1 and 1."""
    count, total = len(pseudo) + CHANGED + UNCHANGED, float(pseudo.sum()) + CHANGED
    spread = math.sqrt(float(np.square(pseudo).sum()) + CHANGED - total**2 / count)
    return min(1.0, (total + QUANTILE * spread) / count)


def images_needed(found: Fall, most: float) -> int | None:
    """Return how many images would show that a fall like this one is at most `most`; None if none would.

    The width of the interval falls with the root of the number of images.
    """
    if found.high is None or found.images is None or not found.fall < most:
        return None
    return math.ceil(found.images * ((found.high - found.fall) / (most - found.fall)) ** 2)


def _by_image(
    before: Graph,
    after: Graph,
    batches: Iterable[tuple[Tensor, NDArray[Any] | None]],
    device: torch.device | str,
    tallies: Tallies,
) -> list[_Sums]:
    """Add images to tallies; returns the sums of each (of each batch, where an output has no row for each image)."""
    roles = roles_of(before)
    found: list[_Sums] = []
    with torch.no_grad(), before.on(device), after.on(device):
        for images, labels in batches:
            if not processes.is_mine(images):
                continue
            x = images.to(device)
            whole, now = ([y.cpu() for y in select(real(graph(x)), roles)] for graph in (before, after))
            by = 1 if all(y.dim() and len(y) == len(x) for y in whole) else len(x)
            for i in range(0, len(x), by):
                rows = slice(i, i + by)
                was, became = ([y[rows] if by < len(x) else y for y in each] for each in (whole, now))
                so_far = tallies.counted()
                tallies.add(by, was, became, None if labels is None else labels[rows])
                found.append(_without(tallies.counted(), so_far))
    return found


def _added(sums: list[_Sums]) -> _Sums:
    """The sums of all images."""
    total: _Sums = [{} for _ in sums[0]] if sums else []
    for each in sums:
        for whole, part in zip(total, each, strict=True):
            for name, value in part.items():
                whole[name] = whole.get(name, 0) + value
    return total


def _without(total: _Sums, part: _Sums) -> _Sums:
    """Sums without those of some images."""
    return [
        {name: value - some.get(name, 0) for name, value in whole.items()}
        for whole, some in zip(total, part, strict=True)
    ]


def _before_after(quality: Quality, output: str, *, decibels: bool) -> tuple[float, float] | None:
    """The metric of an output before and after; None where nothing is known about it."""
    if decibels:
        _, was, now = quality.decibels()
        return None if math.isnan(was) else (was, now)
    row = next((each for each in quality.outputs if each.name == output), None)
    if row is None:
        return (quality.before, quality.after) if not quality.outputs else None
    return row.before, row.after

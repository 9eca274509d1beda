"""The difference of two runs: how far outputs of one network are from those that it should give."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor


def largest_difference(found: Iterable[Any], expected: Iterable[Any], least: float = 0.0) -> float:
    """Return the largest difference of any output, relative to the largest finite number that it should give.

    Two equal infinities do not differ, nor do two nan. A number that is not finite in one of both outputs alone makes
    the difference infinite, so that no comparison with a tolerance holds. True counts as 1.

    Args:
        found: tensors or arrays.
        expected: tensors or arrays, as many. What is neither (e.g. a number or None) is compared with ==.
        least: a largest number below this counts as this.

    Returns:
        The difference, at least 0, never nan: infinite as well where shapes differ.
    """
    return max((_difference(a, b, least) for a, b in zip(found, expected, strict=True)), default=0.0)


def _difference(found: Any, expected: Any, least: float) -> float:
    if not isinstance(expected, Tensor | np.ndarray):
        return 0.0 if found == expected else math.inf
    a, b = (torch.as_tensor(x).detach() for x in (found, expected))
    a, b = (x.to(torch.complex128 if x.is_complex() else torch.float64) for x in (a, b))
    if a.shape != b.shape:
        return math.inf
    finite = b.isfinite()
    if not finite.all():
        if not torch.equal(a[~finite].nan_to_num(nan=_NAN), b[~finite].nan_to_num(nan=_NAN)):
            return math.inf
        a, b = a[finite], b[finite]
    if not b.numel():
        return 0.0
    error, largest = float((a - b).abs().max()), max(float(b.abs().max()), least)
    if not math.isfinite(error):
        return math.inf
    return error / largest if largest else error


#: What stands for nan where nan is compared with nan; infinities become the largest numbers of float64.
_NAN = 0.5

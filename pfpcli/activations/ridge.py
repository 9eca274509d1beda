"""Ridge: the choice of lambda, and X'X with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

#: The squared error on held-out rows with a lambda, see `least_squares.Normals.judge`.
Judge = Callable[["float | None"], float]


def best_ridge(ridges: Sequence[float], judge: Judge | None) -> float | None:
    """Return the lambda with the smallest error; None keeps the weights.

    The error is taken to fall and then to rise as lambda grows, so only lambdas near the best one are tried.

    Args:
        ridges: the choices in ascending order.
        judge: tells the error; None if nothing can be told.
    """
    choices: list[float | None] = [*ridges, None]
    errors: dict[int, float] = {}
    at = len(choices) // 2
    while judge is not None:
        near = [i for i in (at - 1, at, at + 1) if 0 <= i < len(choices)]
        errors.update({i: judge(choices[i]) for i in near if i not in errors})
        best = min(near, key=errors.__getitem__)
        if best == at:
            return choices[at]
        at = best
    return None


def factor(gram: Tensor, ridge: float | None, size: Tensor | None = None) -> Tensor | None:
    """Return the lower Cholesky factor of X'X + lambda 1; None for an infinite lambda, or where there is no factor.

    Args:
        gram: float[..., K, K], X'X.
        ridge: lambda, relative to `size`; None stands for infinity.
        size: see `damped`.
    """
    if ridge is None:
        return None
    # in place: X'X can be the largest tensor of a run. It is symmetric, and LAPACK counts by columns
    found = damped(gram, ridge, size).mT
    failed = torch.empty(gram.shape[:-2], dtype=torch.int32, device=gram.device)
    torch.linalg.cholesky_ex(found, out=(found, failed))
    return None if failed.any() else found


def solve_factored(lower: Tensor, right: Tensor) -> Tensor:
    """Return the solution of A X = B: float[..., K, O]. torch's own function copies the factor, which can be large.

    Args:
        lower: float[..., K, K], the lower Cholesky factor of A.
        right: float[..., K, O], B.
    """
    half = torch.linalg.solve_triangular(lower, right, upper=False)
    found: Tensor = torch.linalg.solve_triangular(lower.mT, half, upper=True)
    return found


def damped(gram: Tensor, ridge: float, size: Tensor | None = None) -> Tensor:
    """Return X'X + lambda 1: float[..., K, K].

    Args:
        gram: float[..., K, K], X'X.
        ridge: lambda, relative to `size`.
        size: float[..., 1]; the mean of the diagonal of X'X by default.
    """
    found = gram.clone()
    size = mean_square(gram) if size is None else size
    found.diagonal(dim1=-2, dim2=-1).add_(ridge * size)
    return found


def mean_square(gram: Tensor) -> Tensor:
    """Return the mean of the diagonal of X'X, float[..., 1]; 1 where all columns are 0, so that lambda is absolute."""
    size = gram.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    return torch.where(size > 0, size, torch.ones_like(size))

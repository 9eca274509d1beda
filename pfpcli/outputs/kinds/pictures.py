"""Image: pictures, compared as pictures are."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.graph.role import Role
from pfpcli.outputs.kinds.kind import TINY, Judged, Labels, Tally
from pfpcli.outputs.kinds.numbers import Regression
from pfpcli.records.parts import DECIBELS

#: The side of SSIM's window, and its two constants for a range of 1.
_WINDOW, _C1, _C2 = 7, 0.01**2, 0.03**2
#: The largest PSNR that is reported, of equal pictures.
_BEST = 100.0


class Image(Regression):
    """A picture: N×C×H×W."""

    def tally(self, role: Role) -> Tally:
        """Return an empty tally."""
        return _Pictures(role)


class _Pictures(Tally):
    """PSNR and SSIM to the original's picture.

    The range of the pixels is 1, 2 or 255 where the original's values fit 0 to 1, -1 to 1 or 0 to 255, and the span of
    the values otherwise.
    """

    def compare(self, before: Tensor, after: Tensor, labels: Labels) -> None:
        """Add the errors of a batch."""
        span = _span(before)
        a, b = before.double() / span, after.double() / span
        self.count("pixels", a.numel())
        self.count("off", float((b - a).square().sum()))
        if a.dim() == 4 and min(a.shape[2:]) >= _WINDOW:
            self.count("ssim", float(ssim(a, b).sum()))
            self.count("pictures", len(a))
            if labels is not None and labels.shape == tuple(before.shape):
                truth = torch.from_numpy(labels).double() / span
                for name, x in (("before", a), ("after", b)):
                    self.count(f"ssim {name}", float(ssim(truth, x).sum()))
                    self.count(f"off {name}", float((truth - x).square().sum()))

    def judged(self) -> Judged:
        """Return the mean SSIM; PSNR is a further measure."""
        mse = self.sums.get("off", 0.0) / max(1.0, self.sums.get("pixels", 0.0))
        pictures = self.sums.get("pictures", 0.0)
        measures = {"PSNR, dB": _psnr(mse)}
        if not pictures:
            alike = max(0.0, 1 - self.distance)
            return Judged("similarity", "1 − relative L2 distance", 1.0, alike, measures, self.distance)
        if "ssim before" in self.sums:
            for measure, name in zip(DECIBELS, ("before", "after"), strict=True):
                measures[measure] = _psnr(self.sums[f"off {name}"] / self.sums["pixels"])
            was, now = (max(0.0, self.sums[f"ssim {name}"] / pictures) for name in ("before", "after"))
            return Judged("ssim", "SSIM to the target pictures", was, now, measures, self.distance)
        mean = max(0.0, self.sums["ssim"] / pictures)
        return Judged("ssim", "SSIM to the original's pictures", 1.0, mean, measures, self.distance)


def _psnr(mse: float) -> float:
    return min(_BEST, -10 * math.log10(max(mse, TINY**2)))


def _span(x: Tensor) -> float:
    low, high = float(x.min()), float(x.max())
    for bottom, top in ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)):
        slack = 0.1 * (top - bottom)  # a network without a clip overshoots a little
        if bottom - slack <= low and high <= top + slack:
            return top - bottom
    return max(high - low, TINY)


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the structural similarity of pictures in a range of 1, with a uniform window of 7×7: float[N].

    Args:
        a: float[N, C, H, W], at least 7 pixels high and wide.
        b: in the same shape.

    Source: Wang et al., Image quality assessment: from error visibility to structural similarity, 2004, equation 13.
    """
    unbiased = _WINDOW**2 / (_WINDOW**2 - 1)
    mu, nu = _mean(a), _mean(b)
    var_a, var_b = ((_mean(x * x) - m * m) * unbiased for x, m in ((a, mu), (b, nu)))
    cov = (_mean(a * b) - mu * nu) * unbiased
    top = (2 * mu * nu + _C1) * (2 * cov + _C2)
    return (top / ((mu * mu + nu * nu + _C1) * (var_a + var_b + _C2))).flatten(1).mean(1)


def _mean(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, _WINDOW, 1)

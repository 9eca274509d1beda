"""The parts of a run's record: costs, quality, checks, layers, groups, errors, recoveries and training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

#: The measures of pictures with targets, before and after.
DECIBELS = ("PSNR to the targets before, dB", "PSNR to the targets after, dB")


@dataclass
class Cost:
    """The cost of a network.

    Attributes:
        params: number of its parameters.
        macs: MACs of one input.
        bytes: size of its parameters and buffers.
        file_bytes: size of its ONNX file.
        latency_ms: median time that onnxruntime takes for one input.
        latency_iqr_ms: interquartile range of that time.
    """

    params: int
    macs: int
    bytes: int
    file_bytes: int | None = None
    latency_ms: float | None = None
    latency_iqr_ms: float | None = None


@dataclass
class OutputQuality:
    """The quality of one output, or of boxes with their scores.

    Attributes:
        name: name of the output, with the range of a part.
        role: what it says, one of `pfpcli.outputs.kinds.KINDS`.
        axis: the dimension of the classes; None where there are none.
        why: how the role was told.
        metric, before, after: as in `Quality`.
        meaning: what the metric is.
        measures: name -> further measures of the result.
    """

    name: str
    role: str
    axis: int | None
    why: str
    metric: str
    meaning: str
    before: float
    after: float
    measures: dict[str, float]


@dataclass
class Quality:
    """The quality of two networks on images that were not used for scoring.

    Attributes:
        metric: name of the metric of the headline, e.g. "accuracy" (the images have labels), "agreement" (fraction of
            images or pixels whose top-1 class is that of the original) or "similarity" (1 minus the relative L2
            distance of the outputs).
        before, after: the metric of the original and of the result, 0 to 1. Without labels, the original's is 1.
        agreement: fraction of decisions that are the same as the original's; None where more than one output counts, or
            the output decides nothing.
        n: number of images.
        source: which images these are.
        distance: L2 distance of the outputs, relative to the norm of the original's; the largest of all outputs.
        classes: number of classes, where the network puts one image into one class; None for all other outputs.
        decided: number of different classes that the original and the result have found; None where `classes` is.
        meaning: what the metric is; "" in older records.
        output: the output that the headline is about; "" in older records.
        outputs: all outputs, worst first; the parts of a detector, which count together in a row of their own, come
            last. Empty in older records.
    """

    metric: str
    before: float
    after: float
    agreement: float | None
    n: int
    source: str
    distance: float
    classes: int | None = None
    decided: tuple[int, int] | None = None
    meaning: str = ""
    output: str = ""
    outputs: list[OutputQuality] = field(default_factory=list)

    def name_before_after(self) -> tuple[str, float, float]:
        """The metric of the headline, before and after."""
        return self.metric, self.before, self.after

    def at(self, other: Quality) -> tuple[float, float]:
        """Return before and after of the output that the headline of another quality is about."""
        for each in self.outputs:
            if (each.name, each.metric) == (other.output, other.metric):
                return each.before, each.after
        return self.before, self.after

    def decibels(self) -> tuple[str, float, float]:
        """The PSNR to target pictures, before and after; nan where no output has targets."""
        found = next((each.measures for each in self.outputs if DECIBELS[0] in each.measures), {})
        before, after = (found.get(name, math.nan) for name in DECIBELS)
        return "PSNR", before, after


@dataclass
class UserMetric:
    """A metric of the user, higher is better.

    Attributes:
        name: name of its function.
        before, after: of the ONNX file of the original and of the result.
    """

    name: str
    before: float
    after: float

    def name_before_after(self) -> tuple[str, float, float]:
        """The metric, before and after."""
        return self.name, self.before, self.after


@dataclass
class Verification:
    """The checks of the cut network.

    Attributes:
        cut_vs_masked: largest difference to the masked network in float64, relative to the largest output; None where
            nothing was cut.
        onnx_vs_torch: the same between the ONNX file in onnxruntime and torch, in float32.
        model_pt: "ok", or why there is no model.pt.
        tolerance: the bound for each of the two differences.
    """

    cut_vs_masked: float | None
    onnx_vs_torch: float
    model_pt: str
    tolerance: dict[str, float]


@dataclass
class LayerRow:
    """A layer that has weights or reads channels; each pair is (before, after).

    Attributes:
        name: name of the layer.
        op: its op, e.g. "conv2d".
        channels_in, channels_out: number of channels that it reads and makes.
        params, macs: number of its parameters, and its MACs for one input.
        groups: number of groups of a convolution, (before, after); a depthwise one has as many as channels.
    """

    name: str
    op: str
    channels_in: tuple[int, int]
    channels_out: tuple[int, int]
    params: tuple[int, int]
    macs: tuple[int, int]
    groups: tuple[int, int] = (1, 1)


@dataclass
class GroupRow:
    """A group of channels.

    Attributes:
        name: the layer that computes the channels.
        size, kept: number of channels before and after.
        frozen_reason: why no channel may be dropped; empty if channels may be dropped.
        inexact: the statistic over channels that changes when channels are dropped; empty if there is none.
        readers: the layers that read the channels.
    """

    name: str
    size: int
    kept: int
    frozen_reason: str
    inexact: str
    readers: tuple[str, ...]


@dataclass
class LayerError:
    """The error of one layer, relative to the sum of the sizes of the terms it adds up.

    Attributes:
        name: name of the layer.
        size, kept: number of channels it reads, before and after.
        total: sum of the sensitivities of these channels; None where the criterion measures none.
        draws: m, the number of draws; for a plan without draws, the number that the shared error stands for.
        epsilon: the error that m draws do not exceed, with probability 1 - delta.
        bound: upper bound of the error on the scoring images.
        measured: largest error on held-out images.
    """

    name: str
    size: int
    kept: int
    total: float | None = None
    draws: int | None = None
    epsilon: float | None = None
    bound: float | None = None
    measured: float | None = None


@dataclass
class Certificate:
    """The errors of all layers that read fewer channels than before.

    Attributes:
        delta: probability that an epsilon does not hold.
        images: number of images on which the errors were measured.
        source: which images these are.
        layers: the errors, in the order in which the layers run.
    """

    delta: float
    images: int
    source: str
    layers: list[LayerError]


@dataclass
class Recovered:
    """The effect of one recovery of a cut network, on images that neither fitted it nor judge the result.

    Attributes:
        method: one of `pfpcli.recovery.methods.RECOVERIES`.
        metric: as in `Quality`, but without labels; "likeness" is the mean over several outputs.
        before, after: the metric, 0 to 1; None where no images were left to check it.
        undone: whether the recovery made the network worse and was therefore reverted.
        images: number of images that it was fitted to.
        checked: number of images that it was checked on.
        closeness_before, closeness_after: exp(-D), 0 to 1, with the mean divergence D of the outputs from the
            original's on those images; it decides where the metric cannot tell. None where there were no images.
        remarks: what the method said of how it went.
    """

    method: str
    metric: str
    before: float | None
    after: float | None
    undone: bool
    images: int
    checked: int
    closeness_before: float | None = None
    closeness_after: float | None = None
    remarks: list[str] = field(default_factory=list)


@dataclass
class Filling:
    """How many weights of a network are nonzero.

    Attributes:
        params: number of its parameters.
        nonzeros: number of its parameters that are not zero.
        macs: MACs of one input, those with a zero included.
        file_bytes: size of its ONNX file.
        deflated_bytes: size of that file after zlib's deflate, level 9.
    """

    params: int
    nonzeros: int
    macs: int
    file_bytes: int
    deflated_bytes: int


@dataclass
class SparseLayer:
    """A tensor of weights.

    Attributes:
        name: name of the layer.
        weights: number of weights.
        nonzeros: number of weights that are not zero, (before, after).
        bound: upper bound of the error of an output on the scoring images, relative to |W| |a|; None if not known.
        error: largest error measured on the images that judge the result.
    """

    name: str
    weights: int
    nonzeros: tuple[int, int]
    bound: float | None
    error: float


@dataclass
class Training:
    """The effect of training with labels.

    Attributes:
        epochs: number of passes over all images; an interrupt makes it a fraction.
        seconds: duration, that before an interrupt included.
        images: number of images trained on.
        checked: number of images that were set aside to choose the best epoch.
        accuracy: accuracy on these, (before, after).
        teacher: name of the model that the network learned from as well; None if there was none.
        weight: weight of the teacher in the loss.
    """

    epochs: float
    seconds: float
    images: int
    checked: int
    accuracy: tuple[float, float]
    teacher: str | None
    weight: float

    @property
    def has_helped(self) -> bool:
        """Whether the accuracy rose; otherwise the weights are those from before."""
        return self.accuracy[1] > self.accuracy[0]

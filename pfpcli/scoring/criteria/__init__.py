"""Criteria: how channels, or single weights, are scored.

A criterion of channels is a function that is given a `Task` and returns `Scores`, and a row in `CRITERIA`. This module
does not import torch; `pfpcli.scoring.score` imports the function of a criterion when it is asked for.

sensitivity    the sensitivity of Provable Filter Pruning
weights        criteria that look at the weights alone
activations    criteria that look at activations, and ThiNet
gradients      criteria that look at gradients of the loss
elimination    Optimal Brain Surgeon for whole channels
ensembles      linear filter ensembles
one_walk       several criteria in one pass over the images
best_order     the best of several criteria for each group
"""

from __future__ import annotations

from dataclasses import dataclass

from pfpcli.registry import register


@dataclass(frozen=True)
class Criterion:
    """One criterion of channels.

    Attributes:
        function: where its function is, "module:function" in this package.
        summary: what it measures, in a few words for --help.
        bounds_error: whether its scores bound the errors of layers, as the sensitivity of PFP does.
        select: how the channels that stay are selected, one of `pfpcli.planning.select.SELECTIONS`.
        samples: number of scoring images; None stands for the number that PFP's error bound needs.
    """

    function: str
    summary: str
    bounds_error: bool = False
    select: str = "largest"
    samples: int | None = None


CRITERIA = register(
    ("auto", Criterion("best_order:auto", "for each group the best of pfp, l2 and weight-activation, measured")),
    ("pfp", Criterion("sensitivity:sensitivity", "largest share of any output", bounds_error=True)),
    (
        "pfp-rand",
        Criterion("sensitivity:sensitivity", "channels drawn by that share and re-weighted", True, "sampled"),
    ),
    ("pfp-mixed", Criterion("sensitivity:sensitivity", "the largest kept, the rest drawn", True, "mixed")),
    ("random", Criterion("weights:uniform", "drawn at random")),
    ("l1", Criterion("weights:l1", "sum of absolute weights")),
    ("l2", Criterion("weights:l2", "Euclidean norm of the weights")),
    ("fpgm", Criterion("weights:fpgm", "distance of the weights to those of the other channels")),
    ("bn", Criterion("weights:bn", "scale of the batch norm")),
    ("activation", Criterion("activations:activation", "mean absolute activation")),
    ("weight-activation", Criterion("activations:weight_activation", "activation times the weights that read it")),
    ("thinet", Criterion("activations:thinet", "error of the layers that read it, greedily")),
    ("taylor", Criterion("gradients:taylor", "change of the loss, to first order")),
    ("obs", Criterion("elimination:obs", "error that the layers that read it cannot compensate", samples=1024)),
    ("lfe", Criterion("ensembles:lfe", "change of the loss, fitted to random masks")),
)


@dataclass(frozen=True)
class WeightCriterion:
    """One criterion of single weights.

    Attributes:
        score: what is compared: the largest sensitivity of a weight over images, with its "mean" or "max" over patches;
            "magnitude"; or "gradient".
        form: how the weights that stay are chosen. "largest": the largest of all layers. "drawn": each row draws its
            weights. "hybrid": each row draws its weights or keeps its largest, whichever has the smaller error.
        summary: what it measures, in a few words for --help.
    """

    score: str
    form: str
    summary: str


WEIGHT_CRITERIA = register(
    ("sipp", WeightCriterion("mean", "largest", "share of an output, mean over patches")),
    ("sipp-rand", WeightCriterion("max", "drawn", "weights drawn by their share and re-weighted")),
    ("sipp-hybrid", WeightCriterion("max", "hybrid", "drawn or the largest kept, whichever errs less")),
    ("magnitude", WeightCriterion("magnitude", "largest", "|w|")),
    ("snip", WeightCriterion("gradient", "largest", "|w dL/dw|, mean over images")),
)

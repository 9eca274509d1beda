"""Criteria: how channels are scored. A criterion is one function of a `Task` that returns `Scores`, and a row here.

Nothing here imports torch; `pfpcli.scoring.score` does, when a criterion is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Criterion:
    """One way of scoring.

    Attributes:
        function: where it is, `module:function` in this package.
        summary: what it measures, in a few words.
        allocate: who says how many channels each group keeps: one of `pfpcli.planning.plan.ALLOCATORS`.
        select: which of them stay: one of `pfpcli.planning.select.SELECTIONS`.
        samples: images it asks for; None asks for as many as PFP's error bound does.
    """

    function: str
    summary: str
    allocate: str = "uniform"
    select: str = "largest"
    samples: int | None = None


CRITERIA = {
    "pfp": Criterion("sensitivity:sensitivity", "largest share of any output", "pfp"),
    "pfp-rand": Criterion("sensitivity:sensitivity", "channels drawn by that share and re-weighted", "pfp", "sampled"),
    "pfp-mixed": Criterion("sensitivity:sensitivity", "the largest kept, the rest drawn", "pfp", "mixed"),
    "random": Criterion("weights:uniform", "drawn at random"),
    "l1": Criterion("weights:l1", "sum of absolute weights"),
    "l2": Criterion("weights:l2", "Euclidean norm of the weights"),
    "fpgm": Criterion("weights:fpgm", "distance of the weights to those of the other channels"),
    "bn": Criterion("weights:bn", "scale of the batch norm"),
    "activation": Criterion("activations:activation", "mean absolute activation"),
    "weight-activation": Criterion("activations:weight_activation", "activation times the weights that read it"),
    "thinet": Criterion("activations:thinet", "what the layer that reads it loses, greedily"),
    "taylor": Criterion("gradients:taylor", "change of the loss, to first order"),
    "obs": Criterion("elimination:obs", "what the layers that read it cannot make good", samples=1024),
    "lfe": Criterion("ensembles:lfe", "change of the loss, fitted to random masks"),
}


@dataclass(frozen=True)
class WeightCriterion:
    """One way of choosing single weights.

    Attributes:
        score: what is compared: the sensitivity, its "mean" or "max" over patches, or "magnitude" or "gradient".
        form: "largest" (those of all layers stay), "drawn" (each row draws its own), or "hybrid" (each row draws or
            keeps its largest, whichever errs less).
        summary: what it measures, in a few words.
    """

    score: str
    form: str
    summary: str


WEIGHT_CRITERIA = {
    "sipp": WeightCriterion("mean", "largest", "share of an output, mean over patches"),
    "sipp-rand": WeightCriterion("max", "drawn", "weights drawn by their share and re-weighted"),
    "sipp-hybrid": WeightCriterion("max", "hybrid", "drawn or the largest kept, whichever errs less"),
    "magnitude": WeightCriterion("magnitude", "largest", "|w|"),
    "snip": WeightCriterion("gradient", "largest", "|w dL/dw|, mean over images"),
}

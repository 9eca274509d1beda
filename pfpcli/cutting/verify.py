"""Verify: a cut network has to equal the masked original."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.cutting.cut import Cut
from pfpcli.cutting.masked import InFloat64, Masked
from pfpcli.errors import CheckFailed
from pfpcli.graph.graph import Graph

#: What the cut network may differ from the masked original, relative to the largest output, in float64.
TOLERANCE = 1e-9


def cut_vs_masked(cut: Cut, samples: Tensor) -> float:
    """Largest difference between the cut network and the masked original, relative to the largest output.

    Args:
        cut: the cut network and how it was made.
        samples: float[N, ...], inputs.

    Raises:
        CheckFailed: they differ, so a rule of the engine is wrong.
    """
    return _checked(cut.graph, Masked(cut.slicing), samples)


def cut_vs_sparse(sparse: Graph, smaller: Graph, samples: Tensor) -> float:
    """As `cut_vs_masked`, where what masks a channel is that all weights which read it are zero.

    Args:
        sparse: the network with zeros in place.
        smaller: the same without the channels that nothing reads.
        samples: float[N, ...], inputs.
    """
    return _checked(smaller, InFloat64(sparse.module), samples)


def _checked(smaller: Graph, original: InFloat64, samples: Tensor) -> float:
    inputs = samples.double()
    found = tree_leaves(InFloat64(smaller.module).run(inputs))
    expected = tree_leaves(original.run(inputs))
    difference = max(relative(a, b) for a, b in zip(found, expected, strict=True))
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"the cut network differs from the masked original by {difference:.1e} (at most {TOLERANCE:.0e} expected)",
            "this is a bug in pfp: please report it with the model's architecture; `--freeze` may work around it",
        )
    return difference


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference of two tensors, relative to the largest number in the second; true is 1."""
    found, expected = found.double(), expected.double()
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    error = float((found - expected).abs().max()) if expected.numel() else 0.0
    return error / largest if largest else error

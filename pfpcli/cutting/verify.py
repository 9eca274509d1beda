"""Verify: check that a cut network equals the masked original."""

from __future__ import annotations

from torch import Tensor
from torch.utils._pytree import tree_leaves

from pfpcli.cutting.cut import Cut
from pfpcli.cutting.masked import InFloat64, Masked
from pfpcli.errors import CheckFailed
from pfpcli.graph.difference import largest_difference
from pfpcli.graph.graph import Graph

#: The largest difference between both networks in float64, relative to the largest output.
TOLERANCE = 1e-9


def cut_vs_masked(cut: Cut, samples: Tensor) -> float:
    """Compare a cut network with the masked original.

    Args:
        cut: the cut network and its slicing.
        samples: float[N, ...], inputs.

    Returns:
        The largest difference of their outputs, relative to the largest output.

    Raises:
        CheckFailed: the difference is above `TOLERANCE`, so a rule for an op is wrong.
    """
    return _checked(cut.graph, Masked(cut.slicing), samples)


def cut_vs_sparse(sparse: Graph, smaller: Graph, samples: Tensor) -> float:
    """Compare a cut network with a sparse network, whose zero weights mask the dropped channels.

    Returns and raises as `cut_vs_masked`.

    Args:
        sparse: the network with zero weights.
        smaller: the network without the channels whose weights are all zero.
        samples: float[N, ...], inputs.
    """
    return _checked(smaller, InFloat64(sparse.module), samples)


def _checked(smaller: Graph, original: InFloat64, samples: Tensor) -> float:
    inputs = samples.double()
    found = tree_leaves(InFloat64(smaller.module).run(inputs))
    expected = tree_leaves(original.run(inputs))
    difference = largest_difference(found, expected)
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"the cut network differs from the masked original by {difference:.1e} (at most {TOLERANCE:.0e} expected)",
            "this is a bug in pfp: please report it with the model's architecture; `--freeze` may work around it",
        )
    return difference

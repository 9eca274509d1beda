"""Importance: how much the outputs of the original depend on each position of what a layer makes.

    s_p = | gradient of the loss of the original's own decisions at position p |

over the channels of the position. A refit that counts every row the same spends itself on the background: a detector
has thousands of places without an object for each place with one. Each image counts the same, whatever its slopes are:
where the original is sure of its decision, they are small.

The root of the Fisher matrix's diagonal is taken, not the diagonal: fewer rows would carry most of the weight of the
square, and a fit to few rows is a worse one on other images.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.activations.output_slopes import OutputSlopes
from pfpcli.graph.graph import Graph, is_tensor
from pfpcli.limits import is_out_of_memory
from pfpcli.outputs.roles import roles_of

#: The share of a row's importance that does not depend on its position.
FLOOR = 0.1
#: The results of the original on one image may hold this many numbers; in a larger one every position counts the same.
MOST = 1 << 27
#: The decisions of each image.
_LIKELY = 1


@dataclass(frozen=True)
class Importance:
    """The importance of positions of what layers make.

    Attributes:
        of: call of a layer -> bfloat16[N, P] for each batch, with a mean of 1 for each image.
        missing: why every position of every layer counts the same; empty where they do not.
    """

    of: dict[str, list[Tensor]] = field(default_factory=dict)
    missing: str = ""


def measure(whole: Graph, calls: Sequence[Node], batches: Iterable[Tensor]) -> Importance:
    """Return the importance of each position of what some layers make.

    Every position counts the same (and all layers are missing) where the network is too large for a backward pass, and
    where torch cannot differentiate it; a layer alone is missing where its slopes are not finite.

    Args:
        whole: the original.
        calls: the calls of its layers.
        batches: float[N, ...] each, on the device of the network.
    """
    found: dict[str, list[Tensor]] = {}
    if not roles_of(whole):
        return Importance(missing="the network puts out no real numbers")
    if _numbers(whole) > MOST:
        return Importance(missing="the network is too large for a backward pass")
    slopes = OutputSlopes(whole, calls, _LIKELY)
    # torch raises an error or warns, for an operation without a derivative
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*autograd kernel was not registered")
            for images in batches:
                sizes = [{call: each.sum(1).sqrt() for call, each in some.items()} for some in slopes.of(images)]
                for call in calls:
                    at = _relative(torch.cat([some[call] for some in sizes]), len(images))
                    found.setdefault(call.name, []).append(at.bfloat16())
    except (RuntimeError, UserWarning) as error:
        ran_out = is_out_of_memory(error)
        return Importance(missing=f"torch {'ran out of memory in' if ran_out else 'cannot compute'} the backward pass")
    return Importance({name: each for name, each in found.items() if all(part.isfinite().all() for part in each)})


def _numbers(whole: Graph) -> int:
    """How many numbers all results of a network on one image hold."""
    held: int = sum(node.meta["val"].numel() for node in whole.nodes if node.op != "get_attr" and is_tensor(node))
    return held // whole.batch


def _relative(sizes: Tensor, images: int) -> Tensor:
    """Sizes of slopes, float[N, P] with N a multiple of the images, as importances with a mean of 1 for each image.

    An image on which the outputs do not depend on the layer counts the same everywhere.
    """
    of_image = sizes.reshape(images, -1)
    mean = of_image.mean(1, keepdim=True)
    relative = torch.where(mean > 0, of_image / mean, 1.0)
    return (FLOOR + (1 - FLOOR) * relative).view_as(sizes)

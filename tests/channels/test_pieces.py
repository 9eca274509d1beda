"""The pieces of a layer: a few images each, or stripes of one large image."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pfpcli.channels import layers
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import Reader, readers
from pfpcli.graph.trace import trace
from random_layer import generator
from zoo import Calls

ROOT = Path(__file__).parents[2]

#: A layer between two others, so that its channels may be dropped: the call, the shape of its input and its weight.
LAYERS: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], tuple[int, ...]]] = {
    "1 × 1": (F.conv2d, (2, 4, 9, 7), (6, 4, 1, 1)),
    "padded": (lambda x, w: F.conv2d(x, w, padding=1), (2, 4, 9, 7), (6, 4, 3, 3)),
    "padded by more than the kernel": (lambda x, w: F.conv2d(x, w, padding=5), (2, 4, 3, 3), (6, 4, 3, 2)),
    "padded unevenly": (lambda x, w: F.conv2d(x, w, padding="same"), (2, 4, 9, 7), (6, 4, 4, 2)),
    "with strides": (lambda x, w: F.conv2d(x, w, stride=(3, 2), padding=1), (2, 4, 11, 8), (6, 4, 3, 3)),
    "dilated": (lambda x, w: F.conv2d(x, w, dilation=3, padding=2), (2, 4, 12, 9), (6, 4, 3, 3)),
    "grouped": (lambda x, w: F.conv2d(x, w, groups=2, padding=1), (2, 4, 9, 7), (6, 2, 3, 3)),
    "of a sequence": (lambda x, w: F.conv1d(x, w, padding=2), (2, 4, 21), (6, 4, 5)),
    "of a volume": (lambda x, w: F.conv3d(x, w, padding=1), (2, 4, 4, 3, 5), (6, 4, 3, 3, 2)),
    "transposed": (lambda x, w: F.conv_transpose2d(x, w, stride=2), (2, 4, 5, 6), (4, 6, 2, 2)),
    "transposed, and cropped": (
        lambda x, w: F.conv_transpose2d(x, w, stride=3, padding=2, output_padding=1, dilation=2),
        (2, 4, 5, 6),
        (4, 6, 3, 2),
    ),
    "linear": (F.linear, (2, 13, 4), (6, 4)),
}


def reader_of(call: Callable[..., Tensor], x: Tensor, weight: Tensor) -> Reader:
    """The layer, in a network of it alone."""
    graph = trace(Calls(lambda m, y: call(y, m.weight), weight=nn.Parameter(weight)), (x,))
    (found,) = readers(group(label(graph)))
    return found


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("stripe", [1, 5])
def test_the_stripes_of_a_map_put_together_are_the_whole(
    name: str, stripe: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, shape, sizes = LAYERS[name]
    x, weight = torch.randn(shape, generator=generator()), torch.randn(sizes, generator=generator(1))
    reader = reader_of(call, x, weight)
    whole = reader.columns(x, weight)
    monkeypatch.setattr(layers, "PIECE", 1)
    monkeypatch.setattr(layers, "_ALIGNED", stripe)
    pieces = list(reader.pieces(x, weight))
    assert len(pieces) > 2
    by_image = torch.cat([each.x for each in pieces[: len(pieces) // 2]], 4)
    assert torch.equal(torch.cat([by_image, torch.cat([each.x for each in pieces[len(pieces) // 2 :]], 4)]), whole.x)
    assert all(torch.equal(each.weight, whole.weight) for each in pieces)
    made = torch.einsum("gojr,ngjrp->ngop", whole.weight, whole.x).flatten(1, 2)
    result = call(x, weight)
    torch.testing.assert_close(
        (made.mT if name == "linear" else made).reshape(result.shape), result, rtol=1e-4, atol=1e-4
    )


#: Scores one layer that reads a map of 600 × 600; its unfolded input would take 830 MB.
LARGE = """
import torch
from torch import nn
from pfpcli import memory
from pfpcli.activations.task import Task
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.graph.trace import trace
from pfpcli.scoring.score import score

layers = [nn.Conv2d(1, 64, 1), nn.Conv2d(64, 4, 3, padding=1), nn.AdaptiveAvgPool2d(1)]
image = torch.randn(1, 1, 600, 600)
groups = group(label(trace(nn.Sequential(*layers), (image,))))
with torch.no_grad():
    groups.labelled.graph.module(image)
memory.forget_peak()
before = memory.held()
scores = score("pfp", Task(groups, readers(groups), lambda: [(image, None)], torch.device("cpu")))
assert scores.samples == 1
print((memory.peak() - before) >> 20)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_scoring_a_large_map_takes_no_more_memory_than_the_map_and_a_few_stripes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LARGE], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=True
    )
    assert int(done.stdout) < 400  # the map alone takes 92 MB

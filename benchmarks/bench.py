"""Where the time and the memory of a compression go: ResNet-50 at 224 x 224, 64 random images, random weights.

    python benchmarks/bench.py [--images N] [--threads N]

Prints the seconds of each step, scoring as a multiple of a plain forward pass over the same images (by the compiled
kernel, by torch alone, and by a loop over the outputs of every layer), and the largest memory of the process. Nothing
here passes or fails.
"""

from __future__ import annotations

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from pfpcli.activations.task import Task
from pfpcli.channels.cost import count
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.channels.reading_layers import readers
from pfpcli.channels.rules import Columns
from pfpcli.cutting.cut import cut
from pfpcli.cutting.verify import cut_vs_masked
from pfpcli.exporting import export
from pfpcli.graph.trace import trace
from pfpcli.planning.choices import orders
from pfpcli.planning.curves import curves
from pfpcli.planning.plan import Budget
from pfpcli.planning.planner import plan
from pfpcli.recovery.paired_run import PairedRun
from pfpcli.recovery.refit import Refit
from pfpcli.scoring import kernel, pfp
from pfpcli.scoring.score import score

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import reference

#: Images scored at a time.
BATCH = 13
#: Images that go through the loop over outputs: it takes minutes for each.
LOOPED = 1


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, and a shortcut (He et al. 2016, stride in the 3x3)."""

    def __init__(self, channels: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.shortcut = nn.Identity()
        if stride > 1 or channels != out:
            self.shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, stride, bias=False), nn.BatchNorm2d(out))

    def forward(self, x: Tensor) -> Tensor:
        """float[N, channels, H, W] -> float[N, 4 width, H / stride, W / stride]."""
        return torch.relu(self.body(x) + self.shortcut(x))


def resnet50() -> nn.Module:
    """ResNet-50 with random weights."""
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    layers.append(nn.MaxPool2d(3, 2, 1))
    channels = 64
    for width, depth, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(depth):
            layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000)).eval()


def memory() -> float:
    """Largest resident memory of the process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


@contextmanager
def timed(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Print and keep what a step takes."""
    start = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - start
    print(f"  {name:<24}{seconds[name]:8.1f} s    {memory():8.0f} MB", flush=True)


def _nothing(x: Tensor) -> None:
    """No kernel for such inputs."""


def main() -> None:
    """Run everything once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    settings = parser.parse_args()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(0)
    images = torch.randn(settings.images, 3, 224, 224)
    print(f"ResNet-50, {settings.images} images of 3×224×224, torch {torch.__version__}, {settings.threads} threads")
    print(f"  {'step':<24}{'time':>10}    {'peak so far':>11}")
    seconds: dict[str, float] = {}
    module = resnet50()
    with torch.no_grad():
        module(images[:BATCH])  # the first pass also allocates
        with timed("plain forward", seconds):
            for batch in images.split(BATCH):
                module(batch)
    with timed("trace", seconds):
        graph = trace(module, (images[:2],))
    with timed("label and group", seconds):
        groups = group(label(graph))
    before = memory()
    batches = [(part, None) for part in images.split(BATCH)]
    task = Task(groups, readers(groups), lambda: batches, torch.device("cpu"))
    pfp.sensitivity(Columns(images[:1, :1, :1, None], torch.ones(1, 1, 1, 1)))  # builds the kernel
    with timed("score", seconds):
        scores = score("pfp", task)
    above = memory() - before
    # a mock would hold on to every tensor it is called with
    with timed("score, torch alone", seconds), mock.patch.object(pfp, "largest_shares", _nothing):
        same = score("pfp", task)
    with timed(f"loop over outputs, {LOOPED} image", seconds):
        reference.sensitivities(groups, images[:LOOPED])
    with timed("plan (keep 0.5)", seconds):
        planned = plan(groups, scores, Budget(0.5))
    with timed("cut", seconds):
        made = cut(groups.labelled, planned.alive)
        smaller = made.graph
    with timed("verify (float64)", seconds):
        cut_vs_masked(made, images[:2])
    with timed("lsq", seconds):
        pair = PairedRun(made)
        for i, some in enumerate(images.split(BATCH)):
            pair.add(i, some)
        pair.run(Refit(pair))
    with timed("obs (instead of pfp)", seconds):
        eliminated = score("obs", task)
    with timed("curves", seconds):
        curves(task, orders(groups, eliminated, Budget(0.5)), count(graph).macs)
    with tempfile.TemporaryDirectory() as folder, timed("export (.pt2 and ONNX)", seconds):
        program = export.program(smaller)
        export.save_pt2(program, Path(folder) / "model.pt2")
        export.save_onnx(program, smaller, export.names(smaller), Path(folder) / "model.onnx", [images[:3]])
    forward = seconds["plain forward"]
    looped = seconds[f"loop over outputs, {LOOPED} image"] / LOOPED * settings.images
    print(f"scoring ({kernel.about()}) is {seconds['score'] / forward:.1f} × a plain forward pass over the same images")
    print(f"scoring with torch alone is {seconds['score, torch alone'] / forward:.1f} ×")
    print(
        f"a loop over the outputs of every layer (tests/reference.py) is {looped / forward:.0f} ×, {LOOPED} image timed"
    )
    there = ~np.isnan(scores.unit) & (same.unit > 0)
    difference = np.abs(scores.unit[there] / same.unit[there] - 1).max()
    print(f"largest relative difference between the scores of the two: {difference:.1e}")
    print(f"scoring needs {above:.0f} MB above what was in use before")
    costs = count(smaller)
    print(f"{planned.before.params:,} → {costs.params:,} parameters, {planned.before.macs:,} → {costs.macs:,} MACs")


if __name__ == "__main__":
    main()

"""Networks and images for which the authors' own code computed sensitivities, in the shared folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import from_program, trace

SHARED = Path(__file__).resolve().parents[1].parent / "shared"
ORACLE = SHARED / "oracle"

#: The authors' numbers move by 4.8e-6 with the batch size.
AGREEMENT = 2e-5


def tinyvgg() -> nn.Module:
    def block(i: int, o: int) -> list[nn.Module]:
        return [nn.Conv2d(i, o, 3, padding=1), nn.BatchNorm2d(o), nn.ReLU()]

    body = [*block(3, 8), *block(8, 12), nn.MaxPool2d(2), *block(12, 16), *block(16, 16), nn.MaxPool2d(2)]
    return nn.Sequential(*body, nn.Flatten(), nn.Linear(1024, 10))


def oddnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 5, 2, 2), nn.BatchNorm2d(6), nn.LeakyReLU(0.2), nn.Conv2d(6, 9, 1, bias=False), nn.Tanh(),
        nn.Conv2d(9, 7, (3, 1), padding=(1, 0)), nn.LeakyReLU(0.1), nn.Conv2d(7, 8, 3, 2, 2, 2), nn.BatchNorm2d(8),
        nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 11), nn.Tanh(), nn.Linear(11, 10),
    )  # fmt: skip


def network(name: str) -> tuple[Graph, Tensor]:
    if name == "resnet20":
        program = torch.export.load(SHARED / "data/models/resnet20.pt2")
        images = torch.from_numpy(np.load(ORACLE / "images_first32.npz")["x"])
        return from_program(program, (images[:2],)), images
    module = {"tinyvgg": tinyvgg, "oddnet": oddnet}[name]().eval()
    module.load_state_dict(torch.load(ORACLE / f"{name}.pt"))
    images = torch.from_numpy(np.load(ORACLE / "tiny_images16.npz")["x"])
    return trace(module, (images[:2],)), images

"""Networks that lose a few channels, and images to distill them with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.channels.slicing import Slicing
from pfpcli.cutting.cut import Cut, cut
from pfpcli.graph.graph import Graph
from pfpcli.graph.trace import trace
from pfpcli.images.calibration import Calibration, Division
from pfpcli.images.folder import open_folder
from pfpcli.images.preprocess import preprocessing
from pfpcli.recovery import distill
from pfpcli.settings import CalibrationSettings
from properties import random_drop
from zoo import conv


@dataclass(frozen=True)
class Case:
    """A network, what is left of it, and images."""

    whole: Graph
    kept: Slicing
    smaller: Graph
    division: Division

    def distill(self, epochs: int = 2, **settings: Any) -> distill.Distilled:
        how = {"minutes": None, "device": torch.device("cpu"), "seed": 0, **settings}
        return distill.distill(Cut(self.kept, self.smaller), self.division, epochs=epochs, **how)

    def tensors(self) -> dict[str, Tensor]:
        return {name: tensor.clone() for name, tensor in self.smaller.module.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


def divided(folder: Path, size: tuple[int, ...]) -> Division:
    images = open_folder(folder, size)
    settings = CalibrationSettings(model=Path("model.pt"), calib=folder)
    return Calibration(images, None, size, preprocessing(settings, arrays=images.arrays), False, 0).divide(8, None)


def case(module: nn.Module, folder: Path, seed: int = 0, **changes: Any) -> Case:
    """A network of 8 × 8 images without some of its channels, and 60 images of noise."""
    return case_of(group(label(replace(trace(module, (torch.randn(2, 3, 8, 8),)), **changes))), folder, seed)


def case_of(groups: Groups, folder: Path, seed: int = 0) -> Case:
    """The same of a network that is traced."""
    alive = groups.alive(random_drop(groups, seed))
    np.save(folder / "images.npy", np.random.default_rng(0).standard_normal((60, 3, 8, 8), np.float32))
    return Case(groups.labelled.graph, *cut(groups.labelled, alive), divided(folder, (3, 8, 8)))


def undecided() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(conv(3, 12), conv(12, 12), nn.Conv2d(12, 1, 1)).eval()

"""Sensitivities that the authors' own code computed, where the shared folder holds them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from pfpcli.channels import rules as ops
from pfpcli.channels.flow import label
from pfpcli.graph.graph import Graph, owner
from pfpcli.graph.trace import from_program, trace
from pfpcli.scoring import pfp

SHARED = Path(__file__).parents[1].parent / "shared"
ORACLE = SHARED / "oracle"

pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the shared folder is not here")

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


class EveryLayer(fx.Interpreter):
    """Sensitivities of every input channel of every layer, frozen ones too."""

    def __init__(self, graph: Graph, reduce: str) -> None:
        super().__init__(graph.module)
        self._layers = {c.node: c for c in label(graph).contractions if c.weight is not None}
        self._reduce = reduce
        self.found: dict[str, np.ndarray] = {}

    def run_node(self, n: fx.Node) -> object:
        if n in self._layers:
            contraction = self._layers[n]
            rule = ops.find(n.target)
            columns = rule.columns(n, self.env[contraction.x], self.env[contraction.weight])
            self.found[owner(n)] = pfp.sensitivity(columns, self._reduce).flatten().numpy()
        return super().run_node(n)


@pytest.mark.parametrize(("reduce", "suffix"), [("max", ""), ("sum", "_sum")])
@pytest.mark.parametrize("name", ["tinyvgg", "oddnet", "resnet20"])
def test_sensitivities_are_those_of_the_authors_code(name: str, reduce: str, suffix: str) -> None:
    graph, images = network(name)
    walk = EveryLayer(graph, reduce)
    with torch.no_grad():
        walk.run(images)
    expected = np.load(ORACLE / f"pfp_{name}{suffix}.npz")
    assert set(expected.files) == set(walk.found)
    for layer in expected.files:
        np.testing.assert_allclose(walk.found[layer], expected[layer], rtol=AGREEMENT, atol=0, err_msg=layer)

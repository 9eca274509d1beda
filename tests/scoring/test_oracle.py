"""Sensitivities that the authors' own code computed, where the shared folder holds them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import fx

from oracle import AGREEMENT, ORACLE, network
from pfpcli.channels import rules
from pfpcli.channels.labelling import label
from pfpcli.graph.graph import Graph, owner
from pfpcli.scoring import pfp

pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="the shared folder is not here")


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
            rule = rules.find(n.target)
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

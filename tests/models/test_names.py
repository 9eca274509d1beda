"""Names from a file never become source code: they are refused, or replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from model_files import refusal
from pfpcli.errors import InputError
from pfpcli.graph.safe_names import is_safe
from pfpcli.jobs.steps.open import trace_groups
from pfpcli.models.load import from_module, load
from pfpcli.progress import Console
from pfpcli.settings import NetworkSettings

#: Names that would run as code, or end the line that they stand in.
HOSTILE = ('x") or print("run") or (self, "x', "a\\", "a\nb", "a\u2028b", "a'b", "a.b", "class")


def module(name: str, where: str) -> nn.Module:
    """A network in which a child, a parameter or a buffer has a name."""
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    {"child": net._modules, "parameter": net[0]._parameters, "buffer": net[0]._buffers}[where][name] = (
        nn.Identity() if where == "child" else nn.Parameter(torch.zeros(2)) if where == "parameter" else torch.zeros(2)
    )
    return net


@pytest.mark.parametrize("where", ["child", "parameter", "buffer"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_module_with_a_name_that_could_run_is_refused(name: str, where: str, tmp_path: Path) -> None:
    torch.save(module(name, where), tmp_path / "model.pt")
    assert "a module or tensor is named" in refusal(tmp_path / "model.pt").message
    with pytest.raises(InputError, match="a module or tensor is named"):
        from_module(module(name, where), "Net")


@pytest.mark.parametrize("name", ["a b", "日本", "a-1", "(a)", "é"])
def test_an_odd_name_that_is_harmless_works(name: str) -> None:
    assert is_safe(name)
    model = from_module(module(name, "child"), "Net")
    assert trace_groups(model, (3, 8, 8), NetworkSettings(model=Path("Net")), Console()).prunable


@pytest.mark.parametrize("where", ["weight", "node", "value"])
@pytest.mark.parametrize("name", [*HOSTILE, "a/b c:d", "日本", ""])
def test_an_onnx_file_with_any_name_is_read_and_runs_no_code(
    name: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"weight": "w", "node": "first", "value": "hidden", where: name or ("w" if where == "weight" else name)}
    hidden = names["value"] or "hidden"
    rng = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), each)
        for each, shape in ((names["weight"], (8, 3, 3, 3)), ("last", (4, 8, 1, 1)))
    ]
    nodes = [
        helper.make_node("Conv", ["image", names["weight"]], [hidden], name=names["node"]),
        helper.make_node("Conv", [hidden, "last"], ["y"], name="second"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 3, 8, 8])
    graph = helper.make_graph(
        nodes, "net", [image], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    groups = trace_groups(load(path), (3, 8, 8), NetworkSettings(model=path), Console())
    assert [group.size for group in groups.prunable] == [8]
    assert "run" not in capsys.readouterr().out

"""Whole runs on networks people use: random weights, random images, all properties checked on the way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

import pfpcli
from pfpcli.channels.groups import group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.graph.trace import trace
from pfpcli.records.folders import FILES
from pfpcli.records.runs import Run
from properties import assert_costs_as_predicted, assert_equals_masked, random_drop

torchvision = pytest.importorskip("torchvision")

#: Its own forward splits the channels into two halves, and what is left of the two is not equally wide.
NOT_REBUILT = {"shufflenet_v2_x1_0": "its own forward fails on the smaller tensors"}

MODELS = ["resnet18", "mobilenet_v2", "efficientnet_b0", "shufflenet_v2_x1_0", "convnext_tiny"]
#: Those that are cut in a quick test; nets of the zoo have the shuffles, the gates and the norms of the others.
QUICK = ["resnet18", "mobilenet_v2"]
CUT = [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in MODELS]
#: A whole run takes half a minute, most of it in torch's ONNX exporter.
RUNS = [pytest.param(name, marks=[pytest.mark.slow] * (name != "resnet18")) for name in MODELS]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imgs")
    rng = np.random.default_rng(0)
    for i in range(8):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def compress(name: str, images: Path, folder: Path) -> Run:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None)
    torch.save(module.state_dict(), folder / "weights.pt")
    return pfpcli.compress(
        folder / "weights.pt",
        images,
        keep=0.5,
        criterion="l2",
        allocate="uniform",
        recover=(),
        arch=f"torchvision:{name}",
        input_size=(3, 64, 64),
        samples=4,
        out=folder / "run",
    ).record


@pytest.mark.parametrize("name", RUNS)
def test_a_model_of_torchvision_is_halved_and_its_files_are_the_same_network(
    name: str, images: Path, tmp_path: Path
) -> None:
    run = compress(name, images, tmp_path)
    assert run.achieved["exact"]
    assert run.achieved["keep"] == pytest.approx(0.5, rel=0.005)
    assert run.verification.cut_vs_masked < 1e-9
    assert run.verification.onnx_vs_torch < 1e-4
    assert run.verification.model_pt.startswith(NOT_REBUILT.get(name, "ok"))
    assert run.trace == {**run.trace, "unknown": {}, "dynamic_batch": True}
    # the ONNX file takes any batch and is as small as the record says
    model = onnx.load(tmp_path / "run" / FILES["onnx"])
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert run.after.file_bytes == (tmp_path / "run" / FILES["onnx"]).stat().st_size
    assert run.after.file_bytes < 0.6 * run.before.file_bytes
    x = torch.randn(5, 3, 64, 64)
    session = onnxruntime.InferenceSession(tmp_path / "run" / FILES["onnx"])
    found = torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])
    with torch.no_grad():
        expected = torch.export.load(tmp_path / "run" / FILES["pt2"]).module(check_guards=False)(x)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
        if run.verification.model_pt == "ok":
            module = torch.load(tmp_path / "run" / FILES["pt"], weights_only=False)
            torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CUT)
def test_a_model_of_torchvision_is_cut_exactly_and_stays_bit_for_bit_where_everything_is_kept(name: str) -> None:
    torch.manual_seed(0)
    module = torchvision.models.get_model(name, weights=None).eval()
    x = torch.randn(2, 3, 64, 64)
    groups = group(label(trace(module, (x,))))
    assert (groups.labelled.unknown, groups.labelled.graph.dynamic) == ([], True)
    alive = groups.alive(random_drop(groups, 0))
    smaller = cut(groups.labelled, alive).graph
    assert_equals_masked(groups, alive, smaller, (x,))
    assert_costs_as_predicted(groups, alive, smaller)
    same = cut(groups.labelled, groups.alive(np.zeros(0, np.int64))).graph
    state = module.state_dict()
    assert all(torch.equal(state[key], value) for key, value in same.module.state_dict().items() if key in state)
    with torch.no_grad():
        assert torch.equal(same.module(x), groups.labelled.graph.module(x))

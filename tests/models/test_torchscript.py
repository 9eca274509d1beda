"""A script becomes a graph of ATen ops; scripts and programs agree."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from model_files import (
    image,
    plain_net,
    refusal,
    write_program,
)
from pfpcli.errors import TraceError
from pfpcli.models.load import load
from pfpcli.models.torchscript import script_to_fx

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture
def models() -> Path:
    """The folder of trained CIFAR ResNets, where it exists."""
    if not (SHARED / "data" / "models").is_dir():
        pytest.skip("no shared data here")
    return SHARED / "data" / "models"


class Shapes(nn.Module):
    """Sizes in 0-d tensors, transposed and 1-d convolutions, a multiple of the batch, several outputs."""

    def __init__(self) -> None:
        """Layers with random weights."""
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.line = nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float[B, 3, h, w] → float[B, 8, 2h, 2w], float[2B, 4, …]."""
        y = self.body(self.up(x))
        b, c, h, w = y.shape
        return y, self.line(y.reshape(b * 2, c // 2, h * w))


class Named(nn.Module):
    """Returns a dict and has a buffer and a loop."""

    def __init__(self) -> None:
        """Layers with random weights."""
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """float[B, 3, h, w] → the image and its mean."""
        for _ in range(2):
            x = torch.relu(x * self.scale)
        y = self.conv(x)
        return {"image": y, "mean": y.view(y.size(0), -1).mean(1)}


@pytest.mark.parametrize("make", [torch.jit.trace, torch.jit.script], ids=["traced", "scripted"])
@pytest.mark.parametrize("net", [plain_net, Shapes, Named], ids=lambda net: net.__name__)
def test_a_script_becomes_a_graph_with_a_free_batch(make: Callable[..., Any], net: Callable[[], nn.Module]) -> None:
    module = net().eval()
    script = torch.jit.trace(module, image(), strict=False) if make is torch.jit.trace else torch.jit.script(module)
    graph = script_to_fx(script, (image(),))
    program = torch.export.export(graph, (image(),), dynamic_shapes=({0: Dim.AUTO},))
    other = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module(check_guards=False)(other), module(other), rtol=0, atol=1e-6)
    assert dict(graph.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert {name for name, _ in graph.named_buffers()} <= {name for name, _ in module.named_buffers()}
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not [target for target in targets if "_convolution" in target or "_tensor_constant" in target]


def test_a_frozen_script_keeps_its_weights_as_constants(tmp_path: Path) -> None:
    module = plain_net().eval()
    torch.jit.save(torch.jit.freeze(torch.jit.script(module)), tmp_path / "net.pt")
    graph = script_to_fx(load(tmp_path / "net.pt").module, (image(),))
    assert all(name.startswith("constant_") for name, _ in graph.named_buffers())
    torch.testing.assert_close(graph(image()), module(image()), rtol=0, atol=1e-5)


class Halved(nn.Module):
    """Its output has a size that is no multiple of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """float[B, …] → float[B // 2 + 1, …]."""
        return x[: x.size(0) // 2 + 1]


def test_a_batch_that_cannot_be_free_is_kept_as_it_is() -> None:
    graph = script_to_fx(torch.jit.script(Halved()), (image(),))
    assert torch.equal(graph(image()), image()[:2])


class OneRow(nn.Module):
    """Made for a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        """float[1, 3, 8, 8] → float[1, 192]."""
        return x.view(1, 192)


def test_a_script_for_one_row_only_is_kept_as_it_is() -> None:
    one = image()[:1]
    graph = script_to_fx(torch.jit.script(OneRow()), (one,))
    assert torch.equal(graph(one), one.flatten(1))


class Branching(nn.Module):
    """Depends on the numbers themselves."""

    def forward(self, x: Tensor) -> Tensor:
        """float[…] → float[…]."""
        if bool(x.sum() > 0):
            return x
        return -x


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (Branching().eval(), (2, 3), "Branching: reads numbers out of its tensors (aten.item.default)"),
        (nn.Conv2d(3, 4, 3).eval(), (2, 5, 8, 8), "to have 3 channels, but got 5 channels instead"),
        (nn.Dropout(0.5).train(), (2, 3), "training mode (aten.dropout.default trains)"),
    ],
    ids=["branch", "shape", "training"],
)
def test_a_script_that_cannot_be_followed_says_why(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(TraceError) as caught:
        script_to_fx(torch.jit.script(module), (torch.ones(shape),))
    assert message in caught.value.message


@pytest.mark.parametrize("depth", [20, 56])
def test_trained_networks_agree_in_every_format(depth: int, models: Path) -> None:
    script = load(models / f"resnet{depth}_torchscript.pt").module
    program = load(models / f"resnet{depth}.pt2")
    x = torch.randn(3, 3, 32, 32)
    graph = script_to_fx(script, (x,))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), script(x), rtol=0, atol=0)
        torch.testing.assert_close(program.module(x), script(x), rtol=0, atol=1e-4)
    assert program.input_size == (3, 32, 32)
    assert dict(graph.named_parameters()).keys() == dict(program.module.named_parameters()).keys()
    exported = torch.export.export(graph, (x,), dynamic_shapes=({0: Dim.AUTO},))
    assert not isinstance(next(iter(exported.graph.find_nodes(op="output"))).args[0][0].meta["val"].shape[0], int)


@pytest.mark.parametrize("name", ["resnet20_state.pt", "resnet20_checkpoint.pth"])
def test_trained_weights_ask_for_their_architecture(name: str, models: Path) -> None:
    assert "this is a state_dict (" in refusal(models / name).message


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).train()
    with (tmp_path / "net.pt2").open("wb") as file:
        torch.export.save(torch.export.export(net, (image(),)), file)
    assert "training mode (aten.dropout.default" in refusal(tmp_path / "net.pt2").message


def test_a_program_knows_its_input_size(tmp_path: Path) -> None:
    write_program(plain_net(), tmp_path / "net.pt2")
    assert load(tmp_path / "net.pt2").input_size == (3, 8, 8)

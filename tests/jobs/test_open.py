"""Networks that say nothing about the next image are refused before anything is measured."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pfpcli
from commands import SAMPLES, compress, draw, sample_images
from onnx_files import write
from pfpcli.errors import InputError


class Drops(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5)


class Noise(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.randn_like(x)


class Log(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(-F.relu(x) - 1)


def net(*middle: nn.Module) -> nn.Sequential:
    first, last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
    return nn.Sequential(first, *middle, last, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def negative_variance() -> nn.Module:
    norm = nn.BatchNorm2d(8)
    norm.running_var[2] = -1  # type: ignore[index]
    return net(norm)


def constant() -> nn.Module:
    made = net()
    nn.init.zeros_(made[-1].weight)  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (net(Drops()), "dropout.* as in training"),
        (net(Noise()), "randn_like.* as in training"),
        (net(nn.BatchNorm2d(8, track_running_stats=False)), "batch_norm.* as in training"),
        (negative_variance(), "1.running_var has negative numbers"),
        (constant(), "puts out the same for the first 8 images"),
        (net().append(Log()), "puts out nan or infinity only"),
    ],
    ids=["dropout", "noise", "batch statistics", "negative variance", "constant", "nan"],
)
def test_a_network_that_says_nothing_is_refused_with_the_reason(
    module: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        pfpcli.compress(module, SAMPLES / "images", keep=0.5, input_size=(3, 32, 32), out=tmp_path / "run")
    assert not list(tmp_path.iterdir())


class Steps(nn.Module):
    """A state that is the same for all images, and features with the columns of the maps before the images."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
        self.register_buffer("state", torch.zeros(1, 1, 6))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.state + 0 * x.mean(), self.body(x).flatten(1, 2).permute(2, 0, 1)


def test_an_output_whose_first_dimension_is_not_the_images_counts_as_well(tmp_path: Path) -> None:
    path = write(Steps().eval(), torch.randn(1, 3, 12, 12), tmp_path / "net.onnx", free=())
    found = compress(path, draw(tmp_path / "imgs", 16, 12), tmp_path / "run", keep=0.7, criterion="l1")
    assert found.model["input_size"] == [3, 12, 12]


def test_a_file_that_names_a_huge_input_is_refused_before_one_is_made() -> None:
    with pytest.raises(InputError, match="one input is 2×3×1000000×1000000"):
        pfpcli.inspect(net(), input_size=(3, 10**6, 10**6))


class Masked(nn.Module):
    """Rules out a class."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.tensor([0, 0, 0, 0, -torch.inf]))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mask


class Logarithm(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(F.relu(x))


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sample_images(tmp_path_factory.mktemp("open") / "images", 6)


def test_a_mask_of_minus_infinity_in_an_output_leaves_the_budget_as_it_is(images: Path, tmp_path: Path) -> None:
    module = net(nn.ReLU()).append(Masked())
    run = pfpcli.compress(module, images, keep=0.6, input_size=(3, 32, 32), out=tmp_path / "run").record
    assert run.achieved["keep"] == pytest.approx(0.6, abs=0.05)
    assert run.quality.distance < 0.5


def test_outputs_that_are_infinite_where_the_originals_are_not_fail(tmp_path: Path) -> None:
    module = net(nn.ReLU()).append(Logarithm())
    run = pfpcli.compress(module, SAMPLES / "images", keep=0.3, input_size=(3, 32, 32), out=tmp_path / "run").record
    assert run.quality.distance == 1e9
    assert run.status == "failed"


def test_weights_of_any_scale_leave_the_budget_as_it_is(images: Path, tmp_path: Path) -> None:
    module = net(nn.ReLU())
    nn.init.normal_(module[2].weight, std=1e29)  # type: ignore[arg-type]
    run = pfpcli.compress(module, images, keep=0.5, input_size=(3, 32, 32), out=tmp_path / "run").record
    assert run.achieved["keep"] == pytest.approx(0.5, abs=0.05)


def test_names_that_are_no_utf_8_work(tmp_path: Path) -> None:
    odd = os.fsdecode(b"od\xff")
    torch.save(net(nn.ReLU()), tmp_path / f"{odd}.pt")
    images = tmp_path / f"{odd}-images"
    images.mkdir()
    for i, image in enumerate(sorted(SAMPLES.glob("images/*/*"))[::40]):
        shutil.copyfile(image, images / f"{odd}{i}{image.suffix}")
    file, out = tmp_path / f"{odd}.pt", tmp_path / f"{odd}-run"
    pfpcli.compress(file, images, keep=0.5, criterion="l1", input_size=(3, 32, 32), out=out)
    assert json.loads((out / "run.json").read_text(encoding="utf-8"))["model"]["name"] == "od?.pt"


@pytest.mark.parametrize("labels", [np.arange(40) - 20, np.arange(40) * 1000], ids=["negative", "too large"])
def test_labels_that_no_output_has_do_not_count(labels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    images = np.random.default_rng(0).standard_normal((40, 3, 32, 32)).astype(np.float32)
    np.savez(tmp_path / "images" / "all.npz", x=images, y=labels)
    run = pfpcli.compress(net(nn.ReLU()), tmp_path / "images", keep=0.5, criterion="taylor", out=tmp_path / "run")
    assert run.record.quality.metric == "agreement"
    (warning,) = [each for each in run.record.warnings if "labels" in each]
    assert warning.startswith("the labels of images go from ")
    assert "and the network has 5 outputs" in warning

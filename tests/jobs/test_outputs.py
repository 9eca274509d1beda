"""What a whole run makes of outputs that say different things."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from commands import compress, draw, pfp
from onnx_files import write
from pfpcli.errors import InputError, UnsupportedError
from pfpcli.onnx_io.runtime import session

#: The quickest run.
QUICK = {"keep": 0.6, "criterion": "l2", "allocate": "uniform", "input_size": (3, 16, 16)}


class Detector(nn.Module):
    """Boxes and probabilities for each place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.ReLU())
        self.boxes, self.scores = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        x = self.body(x)
        rows = lambda y: y.flatten(2).transpose(1, 2)  # noqa: E731
        return {"scores": rows(self.scores(x)).softmax(-1), "boxes": rows(self.boxes(x))}


@pytest.fixture
def imgs(tmp_path: Path) -> Path:
    return draw(tmp_path / "imgs", 24, 16)


@pytest.mark.parametrize("criterion", ["taylor", "obs", "lfe"])
def test_a_detector_is_judged_output_by_output(criterion: str, imgs: Path, tmp_path: Path) -> None:
    run = compress(Detector(), imgs, tmp_path / "run", **{**QUICK, "criterion": criterion})  # type: ignore[arg-type]
    found = {each.name: (each.role, each.axis, each.metric) for each in run.quality.outputs}
    assert found == {
        "boxes + scores": ("boxes", None, "places"),
        "boxes, there": ("boxes", None, "similarity"),
        "scores": ("probabilities", 2, "similarity"),
        "boxes": ("boxes", None, "similarity"),
    }
    falls = [each.before - each.after for each in run.quality.outputs]
    for some in (slice(0, 2), slice(2, 4)):  # what decides comes first, then each output for itself
        assert falls[some] == sorted(falls[some], reverse=True)
    assert run.quality.output == run.quality.outputs[0].name
    report = pfp("report", "run", cwd=tmp_path).out
    assert "output scores: probabilities (a softmax over 2 classes)" in report
    assert "output boxes: boxes (four numbers for each place that has scores)" in report
    assert "if this is wrong: --output " in report


def test_the_word_of_the_user_is_kept_for_later_commands(imgs: Path, tmp_path: Path) -> None:
    run = compress(Detector(), imgs, tmp_path / "run", **QUICK, output=("boxes=regression",), task="detect")
    assert {each.name: each.role for each in run.quality.outputs}["boxes"] == "regression"
    assert run.settings["output"] == ["boxes=regression"]
    with pytest.raises(InputError, match="the network has no such output, it has scores, boxes"):
        compress(Detector(), imgs, tmp_path / "other", **QUICK, output=("box=regression",))
    done = pfp("certify", "run/model.pt2", "--calib", "imgs", "--task", "detekt", cwd=tmp_path)
    assert done.code == 2
    assert "did you mean `--task detect`?" in done.err


def test_a_network_of_pictures_is_judged_as_pictures(imgs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 27, 3, padding=1), nn.PixelShuffle(3))
    run = compress(net, imgs, tmp_path / "run", **QUICK, preprocess="unit")
    (output,) = run.quality.outputs
    assert (output.role, output.metric) == ("image", "ssim")
    assert output.measures["PSNR, dB"] > 5
    (tmp_path / "high").mkdir()
    for i, file in enumerate(sorted(imgs.iterdir())):
        Image.fromarray(np.full((48, 48, 3), i, np.uint8)).save(tmp_path / "high" / file.name)
    run = compress(net, imgs, tmp_path / "second", **QUICK, preprocess="unit", labels=tmp_path / "high")
    assert run.quality.meaning == "SSIM to the target pictures"
    assert run.quality.before < 1


def test_masks_judge_a_network_of_maps(imgs: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 12, 3, padding=1), nn.ReLU(), nn.Conv2d(12, 5, 3, 2, 1))
    (tmp_path / "masks").mkdir()
    for i, file in enumerate(sorted(imgs.iterdir())):
        Image.fromarray(np.full((16, 16), i % 5, np.uint8)).save(tmp_path / "masks" / file.name)
    run = compress(net, imgs, tmp_path / "run", **QUICK, task="segment", labels=tmp_path / "masks")
    assert run.quality.metric == "mIoU"
    assert 0 <= run.quality.after <= 1
    assert "pixels right" in run.quality.outputs[0].measures


class Chooser(nn.Module):
    """The best of some classes for each pixel."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 5, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x).argmax(1)


def test_a_module_that_puts_out_whole_numbers_alone_is_refused(imgs: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="puts out whole numbers alone") as error:
        compress(Chooser(), imgs, tmp_path / "run", **QUICK)
    assert "ONNX" in error.value.hint


def test_the_file_of_such_a_module_is_judged_by_the_classes_that_it_chooses(imgs: Path, tmp_path: Path) -> None:
    path = write(Chooser().eval(), torch.rand(2, 3, 16, 16), tmp_path / "net.onnx", free=("n",))
    run = compress(path, imgs, tmp_path / "run", **{**QUICK, "input_size": None, "criterion": "obs"})
    (found,) = run.quality.outputs
    assert (found.role, found.axis, found.metric) == ("logits", 1, "agreement")
    assert "mean IoU with the original's" in found.measures
    before, after = (session(each).run(None, {"image": np.zeros((1, 3, 16, 16), np.float32)})[0]
                     for each in (path, tmp_path / "run" / "model.onnx"))  # fmt: skip
    assert before.dtype == after.dtype == np.int64
    assert before.shape == after.shape == (1, 16, 16)

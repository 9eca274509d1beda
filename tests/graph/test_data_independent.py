"""Networks that end in steps whose sizes depend on values: what comes before them is a network of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pfpcli
from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.cutting.cut import cut
from pfpcli.errors import TraceError
from pfpcli.exporting.rebuild import rebuild
from pfpcli.graph.data_independent import data_independent_part
from pfpcli.graph.trace import trace
from properties import assert_costs_as_predicted, assert_equals_masked, random_drop
from zoo import conv


class Detector(nn.Module):
    """Scores and boxes for every place of a map; the forward pass gives back the ones above a threshold."""

    def __init__(self) -> None:
        super().__init__()
        self.backbone = nn.Sequential(conv(3, 8), conv(8, 12))
        self.tower = conv(12, 10)
        self.scores = nn.Conv2d(10, 1, 1)
        self.boxes = nn.Conv2d(10, 4, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        y = self.tower(self.backbone(x))
        scores = self.scores(y).flatten(1).sigmoid()[0]
        boxes = self.boxes(y).flatten(2)[0].T
        best, order = scores.topk(20)
        kept = torch.where(best > 0.5)[0]
        return {"scores": best[kept], "boxes": boxes[order[kept]]}


class Cropping(Detector):
    """Reads the boxes as numbers of Python and cuts the image by them."""

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = super().forward(x)
        corners = found["boxes"].abs().round().long() % 4
        crops = [x[0, :, int(c[0]) : int(c[0]) + 2, c[1] : c[1] + 2].mean() for c in corners]
        return {**found, "means": torch.stack([*crops, torch.zeros(())])}


class Branching(Detector):
    def forward(self, x: Tensor) -> Tensor:
        y = self.backbone(x)
        return y if bool(y.mean() > 0) else self.tower(y)


def build(kind: type[nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return kind().eval()


def image() -> Tensor:
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def grouped(module: nn.Module) -> Groups:
    return group(label(trace(module, (image(),))))


@pytest.mark.parametrize("kind", [Detector, Cropping])
def test_the_outputs_are_what_reaches_the_picking_whole_and_before_it_is_put_in_order(kind: type[nn.Module]) -> None:
    module = build(kind)
    part, stops = data_independent_part(module, (image()[:1],))
    with torch.no_grad():
        y = module.tower(module.backbone(image()[:1]))
        scores, boxes = part(image()[:1])
        torch.testing.assert_close(scores, module.scores(y))
        torch.testing.assert_close(boxes, module.boxes(y))
    assert set(stops) == {"aten.where.default"}


def test_its_tensors_are_the_modules_own_under_their_own_names() -> None:
    module = build(Detector)
    part, _ = data_independent_part(module, (image()[:1],))
    assert set(dict(part.named_parameters())) == set(dict(module.named_parameters()))
    assert all(part.get_parameter(name) is value for name, value in module.named_parameters())


def test_what_the_picking_reads_stays_and_everything_in_front_of_it_can_be_cut() -> None:
    groups = grouped(build(Detector))
    frozen = {g.name: g.frozen for g in groups.groups if g.frozen}
    assert frozen["boxes"] == "output of the model"
    assert {g.name for g in groups.prunable} == {"backbone.0.0", "backbone.1.0", "tower.0"}
    for seed in range(3):
        alive = groups.alive(random_drop(groups, seed))
        smaller = cut(groups.labelled, alive).graph
        assert_equals_masked(groups, alive, smaller, (image()[:1],))
        assert_costs_as_predicted(groups, alive, smaller)


def test_a_detector_that_was_cut_is_written_back_into_the_users_module_with_its_picking() -> None:
    module = build(Detector)
    groups = grouped(module)
    alive = groups.alive(random_drop(groups, 1))
    smaller = cut(groups.labelled, alive).graph
    rebuilt, reason = rebuild(module, smaller)
    assert reason == "ok"
    assert rebuilt is not None
    assert set(rebuilt(image()[:1])) == {"scores", "boxes"}
    assert sum(p.numel() for p in rebuilt.parameters()) == sum(p.numel() for p in smaller.module.parameters())


def test_a_network_that_chooses_its_layers_by_a_value_is_refused() -> None:
    with pytest.raises(TraceError, match="reads a value"):
        data_independent_part(build(Branching), (image()[:1],))
    with pytest.raises(TraceError, match=r"torch\.export cannot follow"):
        trace(build(Branching), (image(),))


def test_what_is_computed_with_a_size_that_depends_on_values_is_behind_the_picking() -> None:
    class Sliced(Detector):
        def forward(self, x: Tensor) -> Tensor:
            y = self.backbone(x)
            count = torch.where(y > 0.5)[0].shape[0]
            return self.tower(y)[:, :, : 1 + count % 4]

    module = build(Sliced)
    part, _ = data_independent_part(module, (image()[:1],))
    with torch.no_grad():
        (found,) = part(image()[:1])
        torch.testing.assert_close(found.relu(), module.backbone(image()[:1]))


def test_a_detector_goes_through_compress_and_comes_out_whole(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(12):
        np.save(folder / f"{i}.npy", torch.randn(3, 8, 8).numpy())
    torch.save(build(Detector), tmp_path / "detector.pt")
    run = pfpcli.compress(
        tmp_path / "detector.pt", folder, keep=0.5, input_size=[3, 8, 8], trust=True, out=tmp_path / "run"
    ).record
    assert run.verification.model_pt == "ok"
    assert run.quality.metric == "similarity"
    assert run.trace["stops"] == ["aten.where.default"]
    assert any("model.onnx ends in front of them" in warning for warning in run.warnings)
    smaller = torch.load(tmp_path / "run" / "model.pt", weights_only=False)
    assert set(smaller(image()[:1])) == {"scores", "boxes"}


def test_what_is_written_to_after_the_picking_is_given_out_as_it_was_before() -> None:
    class Writes(Detector):
        def forward(self, x: Tensor) -> Tensor:
            y = self.backbone(x)
            found = torch.where(y > 0.5)[0]
            y[0, 0, 0, 0] = found.float().sum()
            return self.tower(y)

    module = build(Writes)
    part, _ = data_independent_part(module, (image()[:1],))
    with torch.no_grad():
        (found,) = part(image()[:1])
        torch.testing.assert_close(found.relu(), module.backbone(image()[:1]))

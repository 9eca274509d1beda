"""The details of a run: what its page shows beyond the record, collected while the run is made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import pfpcli
from commands import draw, plain, tensors
from pfpcli.records.details import Details
from pfpcli.records.folders import FILES
from pfpcli.records.reading import read, read_details
from pfpcli.records.runs import Run
from pfpcli.report import REPORTS
from zoo import conv


def details(folder: Path) -> Details:
    found = read_details(folder)
    assert found is not None
    return found


def compressed(module: nn.Module, images: Path, out: Path, **settings: Any) -> Path:
    pfpcli.compress(module.eval(), images, out=out, threads=1, samples=6, **settings)
    return out


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on images of five classes, which are those of the network; its curves are measured."""
    home = tmp_path_factory.mktemp("details")
    for number, name in enumerate("abcde"):
        draw(home / "imgs" / name, 6, seed=number)
    return compressed(plain(), home / "imgs", home / "run", keep=0.4, allocate="error")


def test_the_page_in_the_folder_is_made_again_from_the_folder(folder: Path) -> None:
    page = (folder / FILES["page"]).read_text(encoding="utf-8")
    assert REPORTS["html"](read(folder), details=read_details(folder)) == page
    assert "Images that changed most" in page


def test_every_group_has_its_scores_and_the_channels_that_the_plan_dropped(folder: Path) -> None:
    run, found = read(folder), details(folder)
    assert isinstance(run, Run)
    widths = {group.name: (group.size, group.kept) for group in run.groups if not group.frozen_reason}
    assert {each.name: (len(each.scores), len(each.scores) - len(each.dropped)) for each in found.groups} == widths
    for each in found.groups:
        every = list(range(len(each.scores)))
        assert sorted(set(every) - set(each.dropped)) == tensors(folder).get(f"{each.name}.weight", {}).get("0", every)


def test_scores_are_as_exact_as_a_drawing_needs_and_the_lowest_were_dropped(folder: Path) -> None:
    for each in details(folder).groups:
        lowest = sorted(each.scores)[: len(each.dropped)]
        assert sorted(each.scores[unit] for unit in each.dropped) == lowest
        assert all(float(f"{score:.4g}") == score for score in each.scores)


def test_every_group_has_its_curve(folder: Path) -> None:
    found = details(folder)
    assert [each.name for each in found.curves] == [each.name for each in found.groups]
    for curve, group in zip(found.curves, found.groups, strict=True):
        assert curve.positions == len(group.scores)
        assert {len(losses) for losses in curve.losses.values()} == {len(curve.kept)}


def test_classes_add_up_to_the_quality_of_the_record(folder: Path) -> None:
    run, found = read(folder), details(folder).behaviour
    assert found is not None
    assert found.labelled
    assert found.images == sum(each.count for each in found.classes) == run.quality.n
    assert sum(each.before for each in found.classes) / run.quality.n == pytest.approx(run.quality.before)
    assert sum(each.after for each in found.classes) / run.quality.n == pytest.approx(run.quality.after)
    assert found.differ == round((1 - (run.quality.agreement or 0)) * run.quality.n)


def test_changed_images_are_named_and_labelled_by_their_folder(folder: Path) -> None:
    found = details(folder).behaviour
    assert found is not None
    assert found.changed
    for each in found.changed:
        assert each.name.startswith(f"{each.truth}/")
        assert each.picture.startswith("data:image/jpeg;base64,")
        assert " %)" in each.before


@pytest.mark.slow
def test_a_broken_image_moves_no_name_to_another(folder: Path, tmp_path: Path) -> None:
    images = draw(tmp_path / "imgs", 12)
    whole = details(compressed(plain(), images, tmp_path / "whole", eval=draw(tmp_path / "eval", 9, seed=9))).behaviour
    (tmp_path / "eval" / "03.png").write_bytes((tmp_path / "eval" / "03.png").read_bytes()[:60])
    broken = details(compressed(plain(), images, tmp_path / "broken", eval=tmp_path / "eval")).behaviour
    assert whole is not None
    assert broken is not None
    pictures = {each.name: each.picture for each in whole.changed}
    assert broken.images == 8
    assert all(pictures[each.name] == each.picture for each in broken.changed)


@pytest.mark.slow
def test_a_map_of_classes_is_shown_before_and_after(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(conv(3, 16), conv(16, 16), nn.Conv2d(16, 4, 1))
    images = draw(tmp_path / "imgs", 12)
    out = compressed(module, images, tmp_path / "run", task="segment", criterion="l1", allocate="uniform")
    found = details(out).behaviour
    assert found is not None
    assert found.counted == "pixels"
    assert not found.labelled
    assert all(len(each.maps) == 3 for each in found.changed)
    assert (out / FILES["page"]).read_text(encoding="utf-8").count('alt="difference"') == len(found.changed)


@pytest.mark.slow
def test_a_picture_is_shown_before_and_after(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(conv(3, 16), nn.Conv2d(16, 12, 3, 1, 1), nn.PixelShuffle(2))
    images = draw(tmp_path / "imgs", 12)
    out = compressed(module, images, tmp_path / "run", task="image", criterion="l1", allocate="uniform")
    found = details(out).behaviour
    assert found is not None
    assert found.classes == []
    assert all(len(each.maps) == 3 and each.before == "" for each in found.changed)


@pytest.mark.slow
def test_arrays_are_shown_as_pictures_where_they_are_some(tmp_path: Path) -> None:
    (tmp_path / "arrays").mkdir()
    values = np.random.default_rng(0).normal(size=(12, 3, 8, 8)).astype(np.float32)
    np.save(tmp_path / "arrays" / "x.npy", values)
    out = compressed(plain(), tmp_path / "arrays", tmp_path / "run", criterion="l1", allocate="uniform")
    found = details(out).behaviour
    assert found is not None
    assert all(each.name.startswith("x.npy[") and each.picture for each in found.changed)


@pytest.mark.slow
def test_a_plan_of_several_steps_has_the_scores_of_the_original(tmp_path: Path) -> None:
    images = draw(tmp_path / "imgs", 12)
    found = details(compressed(plain(), images, tmp_path / "run", criterion="l1", allocate="uniform", steps=2))
    assert [len(each.scores) for each in found.groups] == [24, 32, 16]
    assert found.curves == []

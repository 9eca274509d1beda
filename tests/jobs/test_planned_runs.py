"""`pfp plan` and `pfp compress --plan`: decide now, cut later, cut a fine-tuned checkpoint the same way."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import pfpcli
from commands import plain
from pfpcli.cli import main as cli
from pfpcli.errors import InputError
from pfpcli.records.sources import Source
from zoo import conv

FAST = {"criterion": "l2", "allocate": "uniform", "task": "classify", "threads": 1}


def compress(model: str = "model.pt", **settings: Any) -> pfpcli.Result:
    return pfpcli.compress(model, "imgs", **{**FAST, **settings})


@pytest.fixture
def planned(inside: Path) -> pfpcli.Plan:
    file = inside / "planned.json"
    file.unlink(missing_ok=True)
    return pfpcli.plan("model.pt", "imgs", keep=0.4, out=file, **FAST)


def test_a_plan_is_all_that_is_written(planned: pfpcli.Plan, inside: Path) -> None:
    assert planned.file == inside / "planned.json"
    assert not (inside / "pfp-runs").exists()
    assert planned.record.achieved["keep"] == pytest.approx(0.4, abs=0.02)
    assert planned.record.after.params < planned.record.before.params
    assert planned.record.after.latency_ms is None


@pytest.mark.parametrize(
    "how",
    [
        {"criterion": "pfp-rand", "samples": 8},
        pytest.param({"allocate": "best"}, marks=pytest.mark.slow),
        pytest.param({"steps": 2, "recover": ()}, marks=pytest.mark.slow),
    ],
)
def test_a_plan_makes_the_network_that_its_budget_makes(how: dict[str, Any], inside: Path) -> None:
    file = pfpcli.plan("model.onnx", "imgs", keep=0.4, out=inside / "again.json", **{**FAST, **how}).file
    at_once = compress("model.onnx", keep=0.4, out="at-once", **how)
    assert file.read_bytes() == (at_once.folder / "plan.json").read_bytes()
    if "steps" in how:
        return  # recovery between the steps is no part of a plan
    found = compress("model.onnx", plan=file, out="replayed", **how)
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(found.module()(x), at_once.module()(x))
    assert found.record.after.params == at_once.record.after.params
    assert found.record.scoring["criterion"] == "plan"
    assert "score" not in found.record.timings


def test_a_fine_tuned_checkpoint_is_cut_in_the_same_places(planned: pfpcli.Plan, inside: Path) -> None:
    tuned = torch.load("model.pt", weights_only=False)
    with torch.no_grad():
        for tensor in tuned.parameters():
            tensor += 0.01 * torch.randn_like(tensor)
    torch.save(tuned, "tuned.pt")
    first = compress("model.pt", plan=planned.file, recover=(), out="model")
    second = compress("tuned.pt", plan=first.folder / "plan.json", recover=(), out="tuned")
    plans = [json.loads((run.folder / "plan.json").read_text(encoding="utf-8")) for run in (first, second)]
    assert plans[0] == plans[1]
    assert first.folder.name == "model"
    # the file of `pfp plan` lies in no run
    assert [run.record.sources for run in (first, second)] == [[], [Source("planned", "model")]]
    shapes = [{name: tensor.shape for name, tensor in run.module().state_dict().items()} for run in (first, second)]
    assert shapes[0] == shapes[1]
    assert not torch.equal(first.module()(torch.ones(1, 3, 8, 8)), second.module()(torch.ones(1, 3, 8, 8)))


def test_a_plan_of_another_network_is_refused_with_the_tensor(planned: pfpcli.Plan, inside: Path) -> None:
    torch.manual_seed(0)
    wider = plain()
    wider[1] = conv(24, 48)
    wider[3] = conv(48, 16)
    torch.save(wider.eval(), "wider.pt")
    with pytest.raises(
        InputError, match=r"planned\.json: 1\.0\.weight: found 48×24×3×3 in this model, expected 32×24×3×3"
    ):
        compress("wider.pt", plan=planned.file, out="wider")
    assert not (inside / "wider").exists()


def test_a_plan_that_drops_frozen_channels_is_refused(planned: pfpcli.Plan, inside: Path) -> None:
    with pytest.raises(InputError, match=r"planned\.json: does not fit this model and its --freeze"):
        compress(plan=planned.file, freeze="1.*", out="frozen")
    assert not (inside / "frozen").exists()


def test_a_plan_that_keeps_nothing_of_a_tensor_is_refused(planned: pfpcli.Plan, inside: Path) -> None:
    content = json.loads(planned.file.read_text(encoding="utf-8"))
    name = min(content["tensors"])
    content["tensors"][name] = {dim: [] for dim in content["tensors"][name]}
    (inside / "empty.json").write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=r"empty\.json: keeps indices along dimension 0 of"):
        compress(plan="empty.json", out="empty")


def test_a_file_that_is_no_plan_is_refused_before_anything_is_loaded(inside: Path) -> None:
    (inside / "no.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InputError, match=r"no\.json: not a plan"):
        pfpcli.compress("nothing.pt", "imgs", plan="no.json")


def test_two_plans_of_one_name_both_stay(inside: Path) -> None:
    files = [pfpcli.plan("model.pt", "imgs", keep=keep, **FAST).file for keep in (0.5, 0.5)]
    assert [file.name for file in files] == ["model-keep0.50-plan.json", "model-keep0.50-plan-2.json"]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_the_table_says_what_would_be_cut_and_what_to_type_next(
    inside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["plan", "model.pt", "--calib", "imgs", "--keep", "0.4", "--criterion", "l2", "--allocate", "uniform"]
    assert cli.run([*line, "--threads", "1", "--task", "classify", "--out", "typed.json"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("model.pt: 40.")
    assert "nothing is cut" in out
    assert "wrote typed.json    next: pfp compress model.pt --calib imgs --plan typed.json" in err
    assert cli.run([*line, "--threads", "1", "--json", "--out", "printed.json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["folder"] == "printed.json"
    assert printed["after"]["params"] < printed["before"]["params"]

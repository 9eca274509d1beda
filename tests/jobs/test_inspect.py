"""`pfp inspect`: what can be cut, what cannot and why, without images."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pfpcli.cli import main as cli
from zoo import ZOO, conv, head


def written(module: nn.Module, folder: Path) -> Path:
    """An exported program: a file that needs no architecture and says how large its input is."""
    path = folder / "net.pt2"
    x = torch.randn(2, 3, 8, 8)
    shapes = torch.export.ShapesCollection()
    shapes[x] = {0: torch.export.Dim.AUTO}
    torch.export.save(torch.export.export(module, (x,), dynamic_shapes=shapes), path)
    return path


def inspect(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = cli.run(["inspect", *args])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.fixture
def unknown(tmp_path: Path) -> str:
    return str(written(ZOO["unknown_op"].module(), tmp_path))


def test_groups_their_sizes_readers_and_status_and_what_all_of_it_comes_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(ZOO["plain"].module(), tmp_path)
    code, out, _ = inspect(capsys, str(path))
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == "net.pt2: 1.82 k parameters, 79.5 k MACs, input 3×8×8; batch open"
    assert [line.split() for line in lines if line.startswith("  0.0 ")] == [
        ["0.0", "8", "1.10", "k", "1.0", "prunable"]
    ]
    assert "  frozen  output of the model: 4.2 (5 channels, 35 parameters)" in lines
    assert any("ops, all with a rule: " in line for line in lines)
    assert "  3 of 5 groups are prunable: " in out


def test_ops_without_a_rule_and_what_they_freeze(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = inspect(capsys, unknown)
    assert code == 0
    assert "no rule for: prod ×1" in out
    assert "frozen reaches aten.prod.dim_int, which has no rule: 0.0 (8 channels, " in " ".join(out.split())


def test_strict_makes_an_op_without_a_rule_exit_1(unknown: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = inspect(capsys, unknown, "--strict")
    assert code == 1
    assert "no rule for: prod ×1" in out
    assert "error: --strict: no rule for aten.prod.dim_int\n" in err


def test_strict_stops_a_compression_before_anything_is_written(
    unknown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    torch.manual_seed(0)
    for i in range(4):
        __import__("numpy").save(images / f"{i}.npy", torch.randn(3, 8, 8).numpy())
    out = tmp_path / "out"
    assert cli.run(["compress", unknown, "--calib", str(images), "--strict", "--out", str(out)]) == 1
    assert "error: --strict: no rule for aten.prod.dim_int ×1\n" in capsys.readouterr().err
    assert not out.exists()


def test_exact_only_leaves_channels_alone_that_a_norm_is_taken_across(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(nn.Sequential(conv(3, 8), nn.GroupNorm(1, 8), conv(8, 6), head(6)).eval(), tmp_path)
    found = {}
    for flags in ([], ["--exact-only"]):
        code, out, _ = inspect(capsys, str(path), "--json", *flags)
        assert code == 0
        found[bool(flags)] = {g["name"]: g["frozen_reason"] for g in json.loads(out)["groups"]}
    assert found[False]["0.0"] == found[False]["2.0"] == found[True]["2.0"] == ""
    assert found[True]["0.0"].startswith("--exact-only: normalised across channels")


def test_nothing_to_prune_is_exit_2_with_the_reasons(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(nn.Sequential(nn.Conv2d(3, 4, 3)).eval(), tmp_path)
    code, out, err = inspect(capsys, str(path))
    assert code == 2
    assert "frozen  output of the model: 0 (4 channels, 112 parameters)" in out
    assert "error: net.pt2: nothing in it can be pruned" in err


def test_a_file_that_does_not_say_how_large_its_input_is_needs_a_flag(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "net.pt"
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), path)
    code, _, err = inspect(capsys, str(path))
    assert code == 2
    assert "hint: say it with --input-size C,H,W" in err
    code, out, _ = inspect(capsys, str(path), "--input-size", "3,8,8")
    assert code == 0
    assert "input 3×8×8; batch, height, width open" in " ".join(out.split())


def test_json_holds_every_group_with_its_members(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = written(ZOO["residual"].module(), tmp_path)
    code, out, _ = inspect(capsys, str(path), "--json")
    found = json.loads(out)
    assert code == 0
    assert found["schema_version"] == 1
    assert sum(found["ops"].values()) > 0
    assert found["unknown"] == {}
    prunable = [group for group in found["groups"] if not group["frozen_reason"]]
    assert all(group["members"] and group["readers"] and group["params"] > 0 for group in prunable)
    assert 0.9 < found["prunable"]["params"] <= 1

"""The workflow of docs/how-to/ci.md: its commands run, one after the other, and end as they should."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from torch import nn

from pages import ROOT, text
from runs import run


def steps() -> list[str]:
    """The commands of pfp in the workflow, in their order."""
    blocks = re.findall(r"(?ms)^```yaml\n(.*?)^```$", text("docs/how-to/ci.md"))
    workflow: dict[str, Any] = yaml.safe_load(blocks[0])
    commands = [step.get("run", "") for step in workflow["jobs"]["prune"]["steps"]]
    return [command for command in commands if command.startswith("pfp ")]


def redundant() -> nn.Module:
    """A network of which half of the channels do nothing, so that pruning costs nothing."""
    torch.manual_seed(0)
    first, second = nn.Conv2d(3, 32, 3), nn.Conv2d(32, 16, 3)
    with torch.no_grad():
        second.weight[:, 12:] = 0
    return nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the page says that the repository has, a config file, and pfp on the path."""
    folder = tmp_path_factory.mktemp("ci")
    torch.save(redundant().eval(), folder / "model.pt")
    (folder / "images").mkdir()
    for i in range(24):
        np.save(folder / "images" / f"{i}.npy", torch.randn(3, 10, 10).numpy())
    (folder / "baseline").mkdir()
    (folder / "baseline" / "run.json").write_text(run().json(), encoding="utf-8")
    (folder / "pyproject.toml").write_text('[tool.pfp]\nseed = 3\nallocate = "uniform"\n', encoding="utf-8")
    program = folder / "bin" / "pfp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pfpcli "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return folder


@pytest.fixture(scope="module")
def done(repository: Path) -> dict[str, subprocess.CompletedProcess[str]]:
    """Command -> what it came to."""
    env = {
        **os.environ,
        "PATH": f"{repository / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "GITHUB_STEP_SUMMARY": str(repository / "summary.md"),
        "NO_COLOR": "1",
        "PFP_CACHE": ".pfp-cache",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
    }
    return {
        command: subprocess.run(
            ["bash", "-e", "-c", command], cwd=repository, env=env, capture_output=True, encoding="utf-8", check=False
        )
        for command in steps()
    }


def test_the_workflow_prunes_verifies_judges_and_shows() -> None:
    assert [command.split()[1] for command in steps()] == ["compress", "verify", "report", "compare"]


def test_every_command_of_the_workflow_ends_well(done: dict[str, subprocess.CompletedProcess[str]]) -> None:
    for command, found in done.items():
        assert found.returncode == 0, f"{command}\n{found.stdout}{found.stderr}"


def test_the_summary_has_both_networks(done: dict[str, Any], repository: Path) -> None:
    assert done
    lines = (repository / "summary.md").read_text(encoding="utf-8").splitlines()
    assert lines[0].startswith("| run |")
    assert [line.split("|")[1].strip() for line in lines[2:4]] == ["baseline", "small"]


def test_the_record_is_valid_and_says_where_settings_came_from(done: dict[str, Any], repository: Path) -> None:
    assert done
    record = json.loads((repository / "small" / "run.json").read_text(encoding="utf-8"))
    jsonschema.validate(record, json.loads(text("docs/run.schema.json")))
    assert record["origins"] == {
        "model": "command line",
        "calib": "command line",
        "keep": "command line",
        "out": "command line",
        "seed": "pyproject.toml [tool.pfp]",
        "allocate": "pyproject.toml [tool.pfp]",
    }
    assert "origins" not in record["settings"]

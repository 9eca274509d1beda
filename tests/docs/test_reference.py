"""docs/reference.md has every command and flag, and is what the code says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import typer

from pages import ROOT, script, text
from pfpcli.cli import commands
from pfpcli.cli.app import app


def test_the_reference_is_up_to_date() -> None:
    assert text("docs/reference.md") == script("make_reference").reference(), "stale: run `make reference`"


def test_every_command_flag_default_and_choice_is_in_the_reference() -> None:
    commands.join_all()
    page, program = text("docs/reference.md").replace("\\|", "|"), typer.main.get_command(app)
    found: dict[str, Any] = program.commands  # type: ignore[attr-defined]
    for name, command in found.items():
        assert f"### pfp {name}\n" in page
        for param in command.params:
            shown = param.metavar if param.param_type_name == "argument" else ", ".join(param.opts)
            assert f"`{shown}`" in page, (name, param.name)
            if param.default not in (None, False):
                assert f"`{param.default}`" in page, (name, param.name)
            for choice in param.shell_complete(None, ""):
                assert choice.value in page, (name, param.name)


def test_the_reference_is_made_without_torch(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')", encoding="utf-8")
    code = "import sys; sys.argv = ['x']; import runpy; runpy.run_path('docs/make_reference.py')['reference']()"
    paths = os.pathsep.join([str(tmp_path), str(ROOT)])
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": paths}, check=True)

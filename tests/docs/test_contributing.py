"""The table of CONTRIBUTING.md that says where to add what: its paths and registers exist."""

from __future__ import annotations

import ast
import re

import pytest

from pages import ROOT, text

_PATH = re.compile(r"`((?:pfpcli|tests|docs)/[^`]*)`")
_REGISTER = re.compile(r"`(\w+)` in `([^`]+\.py)`")
ROWS = [line for line in text("CONTRIBUTING.md").splitlines() if line.startswith("| a")]


def assigned(path: str) -> set[str]:
    """The names that a module assigns."""
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    targets = [
        target
        for node in tree.body
        if isinstance(node, ast.Assign | ast.AnnAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
    ]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_the_table_is_found() -> None:
    assert len(ROWS) >= 9


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split("|")[1].strip())
def test_every_path_and_register_of_the_table_exists(row: str) -> None:
    paths = _PATH.findall(row)
    assert paths
    for path in paths:
        assert list(ROOT.glob(path.replace("<name>", "*").rstrip("/"))), path
    for register, path in _REGISTER.findall(row):
        assert register in assigned(path), f"{register} in {path}"

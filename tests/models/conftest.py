"""The current folder of a user who has networks of their own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.linear(x.mean((2, 3)))

def net(num_classes=5):
    return Net(num_classes)

def fails():
    raise ValueError("no such depth")

def number():
    return 7

three = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the user's module `nets` in it."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("import a_missing_library\n")
    for name in ("nets", "broken_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path

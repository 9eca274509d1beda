"""A folder with a small network and images, for the tests of whole jobs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from commands import draw, plain, plain_file


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """model.pt and model.onnx, one network, and imgs, shared by the tests of a module."""
    folder = tmp_path_factory.mktemp("job")
    torch.save(plain(), folder / "model.pt")
    plain_file(folder)
    draw(folder / "imgs", 24)
    return folder


@pytest.fixture
def inside(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same as working directory."""
    monkeypatch.chdir(here)
    return here

"""Which settings were given: those that are not at their defaults."""

from __future__ import annotations

from pathlib import Path

from pfpcli.settings import CompressSettings


def test_settings_at_their_defaults_are_not_given() -> None:
    settings = CompressSettings(model=Path("model.pt"), calib=Path("imgs"), keep=0.5, seed=3, freeze=("a",))
    assert settings.given() == ["model", "freeze", "calib", "seed"]

"""The cache folder, where there is a home and where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from pfpcli.cache_folder import cache_folder, is_private


def test_a_user_without_a_home_has_a_temporary_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PFP_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)

    def nobody() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", nobody)
    assert cache_folder().is_dir()
    assert cache_folder() == cache_folder()


@pytest.mark.parametrize(
    ("folder", "file", "private"), [(0o700, 0o700, True), (0o777, 0o700, False), (0o700, 0o722, False)]
)
def test_a_file_that_others_can_write_to_is_not_private(folder: int, file: int, private: bool, tmp_path: Path) -> None:
    path = tmp_path / "inner" / "library.so"
    path.parent.mkdir()
    path.touch()
    path.chmod(file)
    path.parent.chmod(folder)
    assert is_private(path) is private

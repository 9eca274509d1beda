"""The cache folder, where there is a home and where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pfpcli.cache_folder import cache_folder, is_private, read_sealed, replace, write_sealed


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


def test_a_file_that_cannot_be_replaced_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(tmp_path / "file", b"before")

    def full(draft: Path, target: Path) -> Path:
        raise OSError("full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="full"):
        replace(tmp_path / "file", b"after")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"before"]


def test_what_is_sealed_is_private_whatever_the_umask_is(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_sealed(tmp_path / "cache" / "inner" / "file", b"content")
    finally:
        os.umask(before)
    assert read_sealed(tmp_path / "cache" / "inner" / "file") == b"content"
    for path in (tmp_path / "cache" / "inner", tmp_path / "cache" / "inner" / "file"):
        assert not path.stat().st_mode & 0o077

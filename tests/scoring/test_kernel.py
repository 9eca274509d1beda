"""The compiled kernel: whose code is loaded from the cache folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pfpcli.scoring import kernel

pytestmark = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="there is no C++ compiler here"
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache folder without a library."""
    monkeypatch.setenv("PFP_CACHE", str(tmp_path / "cache"))
    kernel._library.cache_clear()
    yield tmp_path / "cache"
    kernel._library.cache_clear()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder with a library, to be copied."""
    folder = tmp_path_factory.mktemp("built") / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PFP_CACHE", str(folder))
        kernel._built(compiler(), kernel._FLAGS)
    return folder


def compiler() -> str:
    return next(path for name in ("c++", "g++", "clang++") if (path := shutil.which(name)))


def library(cache: Path) -> Path:
    (found,) = cache.glob("*.so")
    return found


def test_a_library_is_built_once_and_lies_beside_its_checksum(cache: Path) -> None:
    assert kernel.about() == "compiled"
    built = library(cache).stat().st_mtime_ns
    assert library(cache).with_suffix(".sha256").exists()
    kernel._library.cache_clear()
    assert kernel.about() == "compiled"
    assert library(cache).stat().st_mtime_ns == built


def test_small_numbers_of_the_process_stay_what_they_are(cache: Path) -> None:
    assert kernel.about() == "compiled"
    assert torch.tensor([1e-40]).sqrt().item() > 0  # below the smallest normal float32


@pytest.mark.parametrize("content", [b"", b"\x7fELF cut off", b"anything"])
def test_a_library_that_is_not_what_was_built_is_built_again(content: bytes, built: Path, cache: Path) -> None:
    shutil.copytree(built, cache)
    made = library(cache)
    assert kernel._built(compiler(), kernel._FLAGS) == made
    sound = made.read_bytes()
    assert sound == library(built).read_bytes()
    made.write_bytes(content)
    assert kernel._built(compiler(), kernel._FLAGS) == made
    assert made.read_bytes() == sound


def test_a_library_that_others_can_write_to_is_not_loaded(cache: Path) -> None:
    cache.mkdir(mode=0o777)
    cache.chmod(0o777)
    assert kernel.about() != "compiled"


@pytest.mark.parametrize("patches", [5, 16])
def test_shares_do_not_depend_on_how_the_input_lies_in_memory(patches: int) -> None:
    share = kernel.largest_shares(torch.zeros(1))
    assert share is not None
    x, weight = torch.rand(4, 3, 1, patches), torch.randn(4, 6, 3, 1)
    signs = (weight.clamp(min=0), weight.neg().clamp(min=0))
    inverted = [(sign.flatten(2) @ x.flatten(1, 2)).reciprocal() for sign in signs]
    lying = x.to(memory_format=torch.channels_last)
    found = [share(each, weight, *inverted, torch.zeros(4, 3)) for each in (x, lying)]
    assert found[0].min() > 0
    assert torch.equal(*found)

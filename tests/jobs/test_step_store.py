"""Step store: a step that is not as this user wrote it under its name is missing, so that it is taken again."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from pfpcli.cache_folder import write_sealed
from pfpcli.jobs.step_store import StepStore, packed, unpacked


def flipped(step: Path, other: Path) -> None:
    content = bytearray(step.read_bytes())
    content[-1] ^= 1
    step.write_bytes(content)


def cut_off(step: Path, other: Path) -> None:
    step.write_bytes(step.read_bytes()[:-1])


def emptied(step: Path, other: Path) -> None:
    step.write_bytes(b"")


def swapped(step: Path, other: Path) -> None:
    step.write_bytes(other.read_bytes())


def without_a_seal(step: Path, other: Path) -> None:
    step.write_bytes(msgspec.msgpack.encode(([9, 9], [])))


def of_another_type(step: Path, other: Path) -> None:
    write_sealed(step, msgspec.msgpack.encode(({"a": "b"}, [])))


def linked(step: Path, other: Path) -> None:
    elsewhere = step.parent.parent / "elsewhere"
    step.rename(elsewhere)
    step.symlink_to(elsewhere)


def piped(step: Path, other: Path) -> None:
    step.unlink()
    os.mkfifo(step)


def a_folder(step: Path, other: Path) -> None:
    step.unlink()
    step.mkdir()


def writable_by_others(step: Path, other: Path) -> None:
    step.chmod(0o666)


CHANGES = [flipped, cut_off, emptied, swapped, without_a_seal, linked, piped, a_folder, writable_by_others]


@pytest.mark.parametrize("change", [*CHANGES, of_another_type])
def test_a_step_that_is_not_as_it_was_kept_is_taken_again(change: Callable[[Path, Path], None], tmp_path: Path) -> None:
    store = StepStore(tmp_path / "state", "key")
    taken: list[str] = []

    def take(name: str) -> tuple[list[int], bool]:
        return store.value(lambda: taken.append(name) or [len(taken)], list[int], name)  # type: ignore[func-returns-value]

    assert [take(name) for name in ("one", "two", "one")] == [([1], False), ([2], False), ([1], True)]
    change(store.path("one"), store.path("two"))
    assert take("one") == ([3], False)
    assert take("two") == ([2], True)


@pytest.mark.parametrize("change", CHANGES)
def test_files_of_a_step_are_written_again_and_those_that_are_not_as_they_were_kept_are_made_again(
    change: Callable[[Path, Path], None], tmp_path: Path
) -> None:
    store = StepStore(tmp_path / "state", "key")
    files = [tmp_path / name for name in ("model.onnx", "model.pt2", "model.pt")]
    written: list[int] = []

    def write() -> int:
        written.append(len(written))
        for file in files[:2]:
            file.write_bytes(file.name.encode())
        return 7

    def take() -> tuple[int, bool]:
        for file in files:
            file.unlink(missing_ok=True)
        found = store.value_and_files(write, int, files, "export")
        assert [file.name for file in files if file.exists()] == ["model.onnx", "model.pt2"]
        assert files[0].read_bytes() == b"model.onnx"
        return found

    assert [take(), take()] == [(7, False), (7, True)]
    path = store.path("export")
    change(*(path.with_name(f"{path.name}.{file.name}") for file in files[:2]))
    assert take() == (7, False)
    assert len(written) == 2


def test_a_step_of_another_network_or_with_other_settings_has_another_name(tmp_path: Path) -> None:
    store, other = (StepStore(tmp_path / "state", key) for key in ("one network", "another"))
    assert len({store.path("a", 1), store.path("a", 2), store.path("b", 1), other.path("a", 1)}) == 4


def test_a_folder_that_somebody_else_made_keeps_no_step(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state").chmod(0o777)
    store = StepStore(tmp_path / "state", "key")
    assert store.value(lambda: 1, int, "one") == (1, False)
    assert not list((tmp_path / "state").iterdir())


class Evil:
    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return Path("hacked").write_text, ("x",)


def test_tensors_of_a_step_run_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in (packed({"a": Evil()}), pickle.dumps(Evil(), protocol=2)):
        with pytest.raises(pickle.UnpicklingError):
            unpacked(content)
    assert not Path("hacked").exists()

"""Tensors in a file come back as they were, and a disk without room for them is named."""

from __future__ import annotations

import os
import tempfile

import pytest
import torch

from pfpcli.activations.stored_tensors import NamelessFile, StoredTensor
from pfpcli.errors import InputError


def test_tensors_come_back_in_any_order() -> None:
    file = NamelessFile()
    tensors = [torch.randn(3, 5), torch.arange(7), torch.zeros(0, 4), torch.randn(2, 6).T, torch.randn(2, 6)[1:, 5]]
    stored = [StoredTensor(file, tensor) for tensor in tensors]
    for tensor, each in reversed([*zip(tensors, stored, strict=True)]):
        assert each.read().dtype == tensor.dtype
        assert torch.equal(each.read(), tensor)


@pytest.mark.parametrize("code", [27, 28], ids=["too large", "no room"])
def test_a_folder_without_room_is_named(code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(InputError) as error:
        StoredTensor(NamelessFile(), torch.randn(3))
    assert error.value.message.startswith(f"{tempfile.gettempdir()}: {os.strerror(code)}")
    assert "TMPDIR" in error.value.hint

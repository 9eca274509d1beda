"""Which TorchScript archives are loaded from a file that is not trusted."""

from __future__ import annotations

from pathlib import Path

import pytest
import scripted
import torch
from torch import nn

import pfpcli
from pfpcli.errors import InputError
from pfpcli.models import scripts
from pfpcli.models.load import load

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def saved(module: nn.Module, folder: Path) -> Path:
    file = folder / "script.pt"
    torch.jit.save(torch.jit.script(module.eval()), file)
    return file


@pytest.mark.parametrize("kind", [scripted.Saves, scripted.MapsAFile, scripted.SavesWhenLoaded])
def test_a_script_that_writes_or_reads_files_is_refused_before_it_runs(
    kind: type[nn.Module], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="writes or reads files") as refused:
        load(saved(kind(), tmp_path))
    assert "--trust" in refused.value.hint
    assert not Path("hacked").exists()


def test_a_script_that_never_ends_is_refused_after_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scripts, "PATIENCE", 2)
    with pytest.raises(InputError, match="not done with one input after 2 s"):
        pfpcli.inspect(saved(scripted.NeverEnds(), tmp_path), input_size=(3, 8, 8))


def test_a_script_with_a_loop_that_ends_is_read(tmp_path: Path) -> None:
    assert pfpcli.inspect(saved(scripted.EndsByACondition(), tmp_path), input_size=(3, 8, 8))


def test_loops_of_torch_itself_are_no_reason_to_try_a_script(tmp_path: Path) -> None:
    file = saved(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), tmp_path)
    assert load(file).looping is None

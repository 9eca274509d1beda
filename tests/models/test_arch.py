"""State dicts need an architecture, and it has to fit."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from model_files import (
    SAMPLES,
    image,
    own_net,
    plain_net,
    refusal,
)
from pfpcli.models import arch
from pfpcli.models.load import load


def test_a_state_dict_without_an_architecture_says_what_is_missing(tmp_path: Path) -> None:
    torch.save(plain_net().state_dict(), tmp_path / "weights.pt")
    error = refusal(tmp_path / "weights.pt")
    assert error.message == (
        "weights.pt: this is a state_dict (9 tensors), not a model; pfp needs the architecture too"
    )
    assert "--arch torchvision:resnet18" in error.hint


def test_an_own_factory_gets_its_arguments(folder: Path) -> None:
    import importlib

    weights = own_net(folder).state_dict()
    weights["linear.weight"], weights["linear.bias"] = torch.ones(3, 8), torch.ones(3)
    torch.save(weights, folder / "weights.pt")
    source = load(folder / "weights.pt", arch="nets:net", arch_kwargs={"num_classes": 3})
    assert source.module(image()).shape == (2, 3)
    assert importlib.import_module("nets").Net is type(source.module)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "_orig_mod.module.", "module.model."])
def test_prefixes_of_training_are_taken_off(prefix: str, folder: Path) -> None:
    weights = {f"{prefix}{name}": value for name, value in own_net(folder).state_dict().items()}
    torch.save({"model": {"n_averaged": torch.tensor(3), **weights}}, folder / "weights.pt")
    found = load(folder / "weights.pt", arch="nets:net").module
    assert torch.equal(found.conv.weight, weights[f"{prefix}conv.weight"])


def test_a_prefix_that_the_network_has_itself_stays(folder: Path) -> None:
    (folder / "wrapped.py").write_text(
        "from torch import nn\ndef net():\n    return nn.ModuleDict({'model': nn.Linear(2, 3)})\n"
    )
    torch.save({"module.model.weight": torch.ones(3, 2), "module.model.bias": torch.ones(3)}, folder / "weights.pt")
    assert load(folder / "weights.pt", arch="wrapped:net").module["model"].weight.sum() == 6


@pytest.mark.parametrize(
    ("arch", "message", "hint"),
    [
        ("resnet18", "--arch resnet18: expected WHERE:NAME", "--arch torchvision:resnet18"),
        (":net", "--arch :net: expected WHERE:NAME", "models:resnet20"),
        ("nets:nett", "--arch nets:nett: nets has no nett", "did you mean `net`?"),
        ("nets:three", "--arch nets:three: three is a int, expected a function", ""),
        ("nets:number", "--arch nets:number: returned a int, expected a torch.nn.Module", "function that builds"),
        ("nets:fails", "--arch nets:fails: fails() failed: ValueError: no such depth", "--arch-kwargs"),
        ("no_nets:net", "--arch no_nets:net: there is no module no_nets", "PYTHONPATH"),
        ("broken_nets:net", "--arch broken_nets:net: importing broken_nets failed: ModuleNotFoundError", ""),
        ("torchvision:resnt18", "--arch torchvision:resnt18: torchvision has no model resnt18", "`resnet18`?"),
        ("torchvision:qqq", "--arch torchvision:qqq: torchvision has no model qqq", "list_models()"),
        ("timm:resnt18", "--arch timm:resnt18: timm has no model resnt18", "did you mean"),
        ("timm:hf_hub:some/thing", "--arch timm:hf_hub:some/thing: timm has no model hf_hub:some/thing", ""),
    ],
)
def test_a_wrong_architecture_is_explained(arch: str, message: str, hint: str, folder: Path) -> None:
    for library in ("torchvision", "timm"):
        if arch.startswith(library):
            pytest.importorskip(library)
    torch.save(own_net(folder).state_dict(), folder / "weights.pt")
    error = refusal(folder / "weights.pt", arch=arch)
    assert error.message.startswith(message)
    assert hint in error.hint


@pytest.mark.parametrize("name", ["torchvision", "timm"])
def test_a_missing_library_names_the_extra_that_installs_it(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(own_net(folder).state_dict(), folder / "weights.pt")
    monkeypatch.setitem(sys.modules, name, None)
    error = refusal(folder / "weights.pt", arch=f"{name}:resnet18")
    assert error.message == f"--arch {name}:resnet18: needs {name}, which is not installed"
    assert f'pip install "pfp[{name}]"' in error.hint


def test_weights_that_do_not_fit_are_counted_and_the_first_of_each_named(folder: Path) -> None:
    weights = own_net(folder).state_dict()
    del weights["norm.weight"], weights["norm.num_batches_tracked"]
    weights["head.scale"] = torch.ones(4, 2)
    weights["conv.weight"] = torch.ones(8, 3, 5, 5)
    torch.save(weights, folder / "weights.pt")
    assert refusal(folder / "weights.pt", arch="nets:net").message == (
        "weights.pt: does not fit nets:net; of its tensors, 1 missing (first norm.weight, 8), "
        "1 unexpected (first head.scale, 4×2), 1 of another shape (first conv.weight: 8×3×5×5 here, 8×3×3×3 there)"
    )


def test_another_number_of_classes_is_suggested(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    torch.save(torchvision.models.squeezenet1_1(weights=None, num_classes=7).state_dict(), tmp_path / "weights.pt")
    error = refusal(tmp_path / "weights.pt", arch="torchvision:squeezenet1_1", arch_kwargs={"dropout": 0.1})
    assert """--arch-kwargs '{"dropout": 0.1, "num_classes": 7}'""" in error.hint
    source = load(tmp_path / "weights.pt", arch="torchvision:squeezenet1_1", arch_kwargs={"num_classes": 7})
    assert source.input_size == (3, 224, 224)


def test_timm_arguments_change_the_input_size(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    kwargs = {"in_chans": 1, "num_classes": 3}
    torch.save(timm.create_model("resnet18", pretrained=False, **kwargs).state_dict(), tmp_path / "weights.pt")
    source = load(tmp_path / "weights.pt", arch="timm:resnet18", arch_kwargs=kwargs)
    assert source.input_size == (1, 224, 224)


def test_nothing_is_downloaded_even_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torchvision = pytest.importorskip("torchvision")

    def no_download(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("tried to download")

    monkeypatch.setattr(torchvision._internally_replaced_utils, "load_state_dict_from_url", no_download)
    monkeypatch.setattr(torchvision.models._api.WeightsEnum, "get_state_dict", no_download)
    torch.save(torchvision.models.squeezenet1_1(weights=None).state_dict(), tmp_path / "weights.pt")
    asked = {"weights": "DEFAULT", "progress": False}
    assert load(tmp_path / "weights.pt", arch="torchvision:squeezenet1_1", arch_kwargs=asked).kind == "state_dict"


@pytest.mark.parametrize("name", ["module", "torchscript", "pt2"])
def test_an_architecture_for_a_whole_model_is_refused(name: str, tmp_path: Path) -> None:
    SAMPLES[name].write(plain_net(), tmp_path / "model.pt")
    error = refusal(tmp_path / "model.pt", arch="torchvision:resnet18")
    assert error.message.endswith("--arch is not needed")


def test_an_architecture_of_a_library_imports_nothing_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[str] = []

    def factory(**given: Any) -> torch.nn.Module:
        seen[:] = sys.path
        return torch.nn.Identity()

    monkeypatch.setitem(arch.FACTORIES, "timm", lambda *names: factory)
    arch.build("timm:net", {})
    assert seen
    assert str(tmp_path) not in seen


def test_timm_reads_no_other_checkpoint(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    name = next(each for each in timm.list_models("*resnet10t*") if "." not in each)
    assert arch.build(f"timm:{name}", {"checkpoint_path": str(tmp_path / "evil.pth")})

"""Files that would run code are refused; layers of the libraries need no trust."""

from __future__ import annotations

import io
import os
import pickle
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from model_files import (
    image,
    own_net,
    plain_net,
    refusal,
    rewritten,
    write_legacy,
    write_program,
)
from pfpcli.models.load import load


@pytest.mark.parametrize(
    "name", ["resnet18", "mobilenet_v2", "densenet121", "efficientnet_b0", "convnext_tiny", "shufflenet_v2_x0_5"]
)
def test_torchvision_models_need_no_trust(name: str, tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    net = getattr(torchvision.models, name)(weights=None)
    torch.save(net, tmp_path / "net.pt")
    found = load(tmp_path / "net.pt").module
    assert type(found) is type(net)
    assert torch.equal(next(found.parameters()), next(net.parameters()))


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "convnext_atto"])
def test_timm_models_need_no_trust_and_know_their_input_size(name: str, tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model(name, pretrained=False), tmp_path / "net.pt")
    source = load(tmp_path / "net.pt")
    assert source.kind == "module"
    assert source.input_size == timm.get_pretrained_cfg(name).input_size


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        """Remember where."""
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        """Say how to make this object: by running a command."""
        return os.system, (f"touch {self.marker}",)


@pytest.mark.parametrize("save", [torch.save, write_legacy], ids=["zip", "legacy"])
@pytest.mark.parametrize("hide", ["alone", "in a checkpoint", "in a module"])
def test_a_malicious_pickle_does_not_run(save: Callable[..., None], hide: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "marker", tmp_path / "model.pt"
    payload: Any = Payload(marker)
    if hide == "in a checkpoint":
        payload = {"state_dict": plain_net().state_dict(), "epoch": payload}
    elif hide == "in a module":
        net = plain_net()
        net.note = payload
        payload = net
    save(payload, path)
    error = refusal(path)
    assert not marker.exists()
    assert error.message.startswith("model.pt: ")
    assert "--trust" in error.hint
    if save is torch.save:
        assert error.message.startswith(f"model.pt: holds {os.system.__module__}.system, which is not a layer of")


def test_a_pickle_of_another_protocol_is_not_loaded(tmp_path: Path) -> None:
    torch.save(Payload(tmp_path / "marker"), tmp_path / "model.pt", pickle_protocol=4)
    assert "protocol" in refusal(tmp_path / "model.pt").message
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_plain_pickle_is_not_loaded_even_with_trust(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(pickle.dumps(Payload(tmp_path / "marker"), protocol=protocol))
    assert "not one that torch.save wrote" in refusal(tmp_path / "model.pkl", trust=True).message
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize(
    "dotted",
    [
        "torch.nn.modules.module.functools.partial",
        "torch.nn.modules.utils._list_with_default",
        "torch.nn.modules.conv.Module",
        "torch.nn.modules.conv.__builtins__.exec",
        "torch.nn.utils.parametrize.register_parametrization",
        "torch.fx.graph_module.GraphModule",
        "torch.jit._script.RecursiveScriptModule",
    ],
)
def test_only_layers_named_where_they_are_defined_are_let_through(dotted: str, tmp_path: Path) -> None:
    module, _, name = dotted.rpartition(".")
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("model/data.pkl", b"\x80\x02c" + f"{module}\n{name}\n".encode() + b".")
        archive.writestr("model/version", "3")
    assert f"{name}, which" in refusal(tmp_path / "model.pt").message


def malicious_inputs(marker: Path) -> Callable[[str, bytes], bytes]:
    """Put a payload where an exported program keeps its example inputs."""
    buffer = io.BytesIO()
    torch.save(Payload(marker), buffer)
    return lambda name, content: buffer.getvalue() if "sample_inputs" in name else content


def malicious_size(marker: Path) -> Callable[[str, bytes], bytes]:
    """Put a payload where an exported program keeps the expression of a symbolic size."""
    code = f"__import__('os').system('touch {marker}')".encode()
    return lambda name, content: re.sub(rb"Symbol\([^)]*\)", code, content)


def malicious_weight(marker: Path) -> Callable[[str, bytes], bytes]:
    """Say that a weight is pickled."""
    return lambda name, content: content.replace(b'"use_pickle": false', b'"use_pickle": true', 1)


def malicious_input_name(marker: Path) -> Callable[[str, bytes], bytes]:
    """Put a payload where an exported program keeps the name of its input."""
    code = f"x=__import__('os').system('touch {marker}'), *".encode()
    return lambda name, content: content.replace(b'"name": "input"', b'"name": "' + code + b'"')


def malicious_node_name(marker: Path) -> Callable[[str, bytes], bytes]:
    """Put a line of code where an exported program keeps the name of a result."""
    code = rb"y = 1\n    __import__('os').system('touch " + str(marker).encode() + b"')"
    return lambda name, content: re.sub(rb'"name": "conv2d"', lambda _: b'"name": "' + code + b'"', content)


def malicious_parameter_name(marker: Path) -> Callable[[str, bytes], bytes]:
    """Put a payload where an exported program keeps the name of a parameter."""
    code = rb"\")) or __import__(\"os\").system(\"touch " + str(marker).encode() + rb"\""
    named = b'"parameter_name": "' + code + b'"'
    return lambda name, content: re.sub(rb'"parameter_name": "[^"]*"', lambda _: named, content)


ATTACKS = [
    malicious_inputs,
    malicious_size,
    malicious_weight,
    malicious_input_name,
    malicious_node_name,
    malicious_parameter_name,
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_malicious_program_does_not_run(attack: Callable[..., Any], tmp_path: Path) -> None:
    path, marker = tmp_path / "net.pt2", tmp_path / "marker"
    write_program(plain_net(), path)
    before = path.read_bytes()
    rewritten(path, attack(marker))
    assert path.read_bytes() != before
    error = refusal(path)
    assert "would run code" in error.message
    assert "--trust" in error.hint
    assert not marker.exists()


def test_compiled_code_in_a_program_is_not_loaded(tmp_path: Path) -> None:
    write_program(plain_net(), tmp_path / "net.pt2")
    rewritten(tmp_path / "net.pt2", lambda name, content: content, data__aotinductor__model__x=b"\x7fELF")
    assert "compiled code" in refusal(tmp_path / "net.pt2").message


def test_an_own_class_needs_trust_and_the_error_names_it(folder: Path) -> None:
    own_net(folder)
    error = refusal(folder / "model.pt")
    assert error.message == (
        "model.pt: holds the class nets.Net, which is not a layer of torch.nn, torchvision or timm; "
        "loading it would run code from the file"
    )
    assert error.hint == "if you trust whoever made the file, add --trust"


def test_with_trust_an_own_class_is_found_in_the_current_folder(folder: Path) -> None:
    net = own_net(folder)
    before = list(sys.path)
    found = load(folder / "model.pt", trust=True)
    assert (found.kind, type(found.module).__name__) == ("module", "Net")
    assert sys.path == before
    assert torch.equal(found.module(image()), net(image()))


def test_with_trust_a_missing_module_is_named(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    own_net(folder)
    os.chdir(tmp_path_factory.mktemp("elsewhere"))
    error = refusal(folder / "model.pt", trust=True)
    assert error.message == "model.pt: needs the Python module nets, which cannot be found"
    assert "PYTHONPATH" in error.hint


def test_with_trust_a_missing_class_is_named(folder: Path) -> None:
    own_net(folder)
    (folder / "nets.py").write_text("three = 3\n")
    assert refusal(folder / "model.pt", trust=True).message.startswith(
        "model.pt: needs Net, which the module nets here"
    )


def test_a_class_of_the_saving_script_is_explained(folder: Path) -> None:
    own_net(folder)
    rewritten(folder / "model.pt", lambda name, content: content.replace(b"cnets\nNet", b"c__main__\nNet"))
    assert "the class __main__.Net" in refusal(folder / "model.pt").message
    assert "defined in the script that saved it" in refusal(folder / "model.pt", trust=True).message

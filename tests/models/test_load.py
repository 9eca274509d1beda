"""What `load` accepts, what it refuses, and that it says so in the right words."""

from __future__ import annotations

import argparse
import io
import json
import os
import pickle
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from pfpcli.errors import InputError, TraceError
from pfpcli.models.artefact import open_artefact
from pfpcli.models.load import LOADERS, load
from pfpcli.models.torchscript import script_to_fx

SHARED = Path(__file__).resolve().parents[2].parent / "shared"


@pytest.fixture
def models() -> Path:
    """The folder of trained CIFAR ResNets, where it exists."""
    if not (SHARED / "data" / "models").is_dir():
        pytest.skip("no shared data here")
    return SHARED / "data" / "models"


NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=5):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.linear = nn.Linear(8, classes)

    def forward(self, x):
        x = torch.relu(self.norm(self.conv(x)))
        return self.linear(x.mean((2, 3)))

def net(num_classes=5):
    return Net(num_classes)

def fails():
    raise ValueError("no such depth")

def number():
    return 7

three = 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the user's module `nets` in it."""
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "broken_nets.py").write_text("import a_missing_library\n")
    for name in ("nets", "broken_nets"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plain_net(classes: int = 5) -> nn.Sequential:
    """A network of nothing but torch's own layers, with batch statistics that are not the initial ones."""
    torch.manual_seed(0)
    net = nn.Sequential(
        OrderedDict(
            conv=nn.Conv2d(3, 8, 3, padding=1),
            norm=nn.BatchNorm2d(8),
            act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            linear=nn.Linear(8, classes),
        )
    )
    net(torch.randn(4, 3, 8, 8) * 3 + 1)
    return net


def own_net(folder: Path) -> nn.Module:
    """The user's Net from `nets`, also saved as model.pt; afterwards its module has to be found anew."""
    sys.path.insert(0, str(folder))
    try:
        import nets

        net = nets.Net().eval()
        torch.save(net, folder / "model.pt")
        return net
    finally:
        sys.path.remove(str(folder))
        del sys.modules["nets"]


def image() -> Tensor:
    """float[2, 3, 8, 8]."""
    torch.manual_seed(1)
    return torch.randn(2, 3, 8, 8)


def write_script(net: nn.Module, path: Path) -> None:
    """TorchScript, traced."""
    torch.jit.save(torch.jit.trace(net.eval(), image()), path)


def write_program(net: nn.Module, path: Path) -> None:
    """A .pt2 archive with a free batch, whatever the suffix."""
    with path.open("wb") as file:
        torch.export.save(torch.export.export(net.eval(), (image(),), dynamic_shapes=({0: Dim.AUTO},)), file)


def write_legacy(content: Any, path: Path) -> None:
    """The format of torch before 1.6."""
    torch.save(content, path, _use_new_zipfile_serialization=False)


def write_onnx(path: Path) -> None:
    """ir_version 10, producer "pytorch", and a graph that is named g."""
    path.write_bytes(b"\x08\x0a\x12\x07pytorch\x3a\x03\x12\x01g")


def write_safetensors(path: Path) -> None:
    """One tensor of one number."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}, separators=(",", ":")).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))


class Sample(NamedTuple):
    """One way to keep `plain_net` in a file."""

    loader: str
    kind: str
    write: Callable[[nn.Module, Path], None]


SAMPLES = {
    "module": Sample("pickle", "module", torch.save),
    "module in a checkpoint": Sample("pickle", "module", lambda net, path: torch.save({"model": net}, path)),
    "state dict": Sample("pickle", "state_dict", lambda net, path: torch.save(net.state_dict(), path)),
    "legacy state dict": Sample("pickle", "state_dict", lambda net, path: write_legacy(net.state_dict(), path)),
    "checkpoint": Sample(
        "pickle",
        "state_dict",
        lambda net, path: torch.save(
            {
                "epoch": 3,
                "best": np.float64(0.5),
                "args": argparse.Namespace(lr=0.1),
                "optimizer": {"state": {}, "param_groups": []},
                "state_dict": {f"module._orig_mod.{name}": value for name, value in net.state_dict().items()},
            },
            path,
        ),
    ),
    "only state dict in a checkpoint": Sample(
        "pickle", "state_dict", lambda net, path: torch.save({"epoch": 3, "generator": net.state_dict()}, path)
    ),
    "torchscript": Sample("torchscript", "torchscript", write_script),
    "pt2": Sample("pt2", "pt2", write_program),
}

#: Formats of which these files hold nothing that could be cut.
REFUSED_FORMATS = {"onnx": write_onnx, "safetensors": write_safetensors}


def refusal(path: Path, **options: Any) -> InputError:
    """The error that loading `path` ends in, which names the file and no folder."""
    with pytest.raises(InputError) as caught:
        load(path, **options)
    assert str(path.parent) not in caught.value.message + caught.value.hint
    return caught.value


@pytest.mark.parametrize("sample", SAMPLES.values(), ids=SAMPLES)
def test_a_network_computes_after_loading_what_it_computed_before(sample: Sample, folder: Path) -> None:
    net = plain_net()
    expected = net.eval()(image())
    path = folder / "weights.bin"  # a suffix of no format
    sample.write(net.train(), path)
    (folder / "plain.py").write_text("from torch import nn\nfrom collections import OrderedDict\n" + _PLAIN)
    source = load(path, arch="plain:net" if sample.kind == "state_dict" else None)
    assert (source.name, source.kind, len(source.sha256)) == ("weights.bin", sample.kind, 64)
    assert (source.program is not None) == (sample.kind == "pt2")
    assert sample.kind == "pt2" or not any(module.training for module in source.module.modules())
    torch.testing.assert_close(source.module(image()), expected, rtol=0, atol=1e-6)


_PLAIN = """
def net():
    return nn.Sequential(OrderedDict(
        conv=nn.Conv2d(3, 8, 3, padding=1), norm=nn.BatchNorm2d(8), act=nn.ReLU(),
        pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten(), linear=nn.Linear(8, 5),
    ))
"""


def test_every_loader_recognises_its_own_files_and_no_others(tmp_path: Path) -> None:
    files: dict[str, list[Path]] = {}
    for number, sample in enumerate(SAMPLES.values()):
        path = tmp_path / f"sample{number}"
        sample.write(plain_net(), path)
        files.setdefault(sample.loader, []).append(path)
    for name, write in REFUSED_FORMATS.items():
        write(tmp_path / name)
        files[name] = [tmp_path / name]
    assert set(files) == {loader.name for loader in LOADERS}
    for name, paths in files.items():
        for path in paths:
            assert [loader.name for loader in LOADERS if loader.recognises(open_artefact(path))] == [name]


def test_the_hash_is_of_the_files_bytes(tmp_path: Path) -> None:
    import hashlib

    torch.save(plain_net(), tmp_path / "net.pt")
    assert load(tmp_path / "net.pt").sha256 == hashlib.sha256((tmp_path / "net.pt").read_bytes()).hexdigest()


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


# What runs code is not loaded


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


def renamed_weight(name: str, content: bytes) -> bytes:
    """Let an exported program point to a member that is not there."""
    return content.replace(b'"weight_1"', b'"weight_99"')


def rewritten(path: Path, change: Callable[[str, bytes], bytes], **added: bytes) -> None:
    """The same zip archive with other contents."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    root = next(iter(members)).partition("/")[0]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, change(name, content))
        for name, content in added.items():
            archive.writestr(f"{root}/{name.replace('__', '/')}", content)


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


@pytest.mark.parametrize("attack", [malicious_inputs, malicious_size, malicious_weight])
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


# The user's own classes


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


# State dicts and --arch


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


# Files that are something else


def write_cut_off(path: Path) -> None:
    """The first half of a checkpoint."""
    torch.save(plain_net().state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_damaged(path: Path) -> None:
    """A checkpoint whose pickle was overwritten."""
    torch.save(plain_net().state_dict(), path)
    rewritten(path, lambda name, content: b"\x80\x02}" if name.endswith("data.pkl") else content)


def write_damaged_script(path: Path) -> None:
    """TorchScript without its code."""
    write_script(plain_net(), path)
    rewritten(path, lambda name, content: b"" if "/code/" in name else content)


def write_damaged_program(path: Path) -> None:
    """A program whose graph is not JSON."""
    write_program(plain_net(), path)
    rewritten(path, lambda name, content: content[:99] if "/models/" in name else content)


def write_zip(path: Path) -> None:
    """A zip archive of anything."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("folder/readme.txt", "hello")


def with_number(name: str, value: float, count: int = 1) -> nn.Module:
    """`plain_net` with `count` bad numbers in one of its tensors."""
    net = plain_net()
    net.state_dict()[name].flatten()[:count] = value
    return net


REFUSED: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "folder": (lambda path: path.mkdir(), "this is a folder, expected a file", "pass a file"),
    "empty": (lambda path: path.touch(), "this file is empty", "download it again"),
    "text": (lambda path: path.write_text("hello\nthere\n"), "this is a text file", "torch.save(model"),
    "git lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
        "this is a Git LFS pointer",
        "git lfs pull",
    ),
    "image": (lambda path: path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(40)), "no format that pfp knows", "torch.save"),
    "cut off": (write_cut_off, "the file was cut off after", "download it again"),
    "damaged": (write_damaged, "cannot be read (EOFError)", "download it again"),
    "damaged script": (write_damaged_script, "cannot be read", "save it again"),
    "program without a weight": (
        lambda path: (write_program(plain_net(), path), rewritten(path, renamed_weight)),
        "cannot be read (RuntimeError: PytorchStreamReader failed locating file data/weights/weight_99",
        "save it again",
    ),
    "damaged program": (write_damaged_program, "cannot be read (JSONDecodeError", "save it again"),
    "cut off legacy": (
        lambda path: (write_legacy(plain_net().state_dict(), path), path.write_bytes(path.read_bytes()[:900])),
        "cannot be read",
        "download it again",
    ),
    "zip": (write_zip, "a zip archive, but not one that torch wrote", "torch.save"),
    "onnx": (write_onnx, "is of opset 1; pfp reads 7 and newer", "convert_version"),
    "safetensors": (write_safetensors, "this is a safetensors file", "safetensors.torch.load_file"),
    "list": (lambda path: torch.save([1, 2], path), "holds a list of 2, not a model", "model.state_dict()"),
    "tensor": (lambda path: torch.save(torch.ones(2), path), "holds a Tensor, not a model", "model.state_dict()"),
    "empty dict": (lambda path: torch.save({}, path), "holds an empty dict, not a model", ""),
    "dict of numbers": (
        lambda path: torch.save({"epoch": 3, "loss": 0.1}, path),
        "holds a dict with the keys 'epoch', 'loss', not a model",
        "",
    ),
    "no parameters": (lambda path: torch.save(nn.ReLU(), path), "holds a ReLU without parameters", ""),
    "nan": (
        lambda path: torch.save(with_number("conv.weight", float("nan"), 3), path),
        "conv.weight holds 3 NaN of 216 numbers",
        "before the training diverged",
    ),
    "infinite": (
        lambda path: torch.save(with_number("linear.bias", float("-inf")), path),
        "linear.bias holds 1 infinite of 5 numbers",
        "",
    ),
    "infinite statistics": (
        lambda path: torch.save(with_number("norm.running_var", float("inf")), path),
        "norm.running_var holds 1 infinite of 8 numbers",
        "",
    ),
    "nan in a program": (
        lambda path: write_program(with_number("conv.weight", float("nan")), path),
        "conv.weight holds 1 NaN",
        "",
    ),
    "nan in a script": (
        lambda path: write_script(with_number("conv.weight", float("nan")), path),
        "conv.weight holds 1 NaN",
        "",
    ),
}


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(("write", "message", "hint"), REFUSED.values(), ids=REFUSED)
def test_a_file_that_is_something_else_is_refused(
    write: Callable[[Path], Any], message: str, hint: str, tmp_path: Path
) -> None:
    path = tmp_path / "model.pt"
    write(path)
    error = refusal(path)
    assert error.message.startswith("model.pt: ")
    assert message in error.message
    assert hint in error.hint


def test_a_mask_of_minus_infinity_is_no_broken_weight(tmp_path: Path) -> None:
    net = plain_net()
    net.register_buffer("mask", torch.full((3, 3), float("-inf")))
    torch.save(net, tmp_path / "model.pt")
    assert load(tmp_path / "model.pt").kind == "module"


def test_a_missing_file_names_the_nearest_one_beside_it(tmp_path: Path) -> None:
    (tmp_path / "resnet18.pt").touch()
    error = refusal(tmp_path / "resnt18.pt")
    assert (error.message, error.hint) == ("resnt18.pt: there is no such file", "did you mean `resnet18.pt`?")
    assert "no folder nowhere" in refusal(tmp_path / "nowhere" / "net.pt").message


def test_a_folder_names_a_file_in_it(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets" / "a.pt").touch()
    assert refusal(tmp_path / "nets").hint == "pass a file in it, e.g. `nets/a.pt`"


def test_a_program_exported_in_training_mode_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).train()
    with (tmp_path / "net.pt2").open("wb") as file:
        torch.export.save(torch.export.export(net, (image(),)), file)
    assert "training mode (aten.dropout.default" in refusal(tmp_path / "net.pt2").message


def test_a_program_knows_its_input_size(tmp_path: Path) -> None:
    write_program(plain_net(), tmp_path / "net.pt2")
    assert load(tmp_path / "net.pt2").input_size == (3, 8, 8)


# TorchScript to fx


class Shapes(nn.Module):
    """Sizes in 0-d tensors, transposed and 1-d convolutions, a multiple of the batch, several outputs."""

    def __init__(self) -> None:
        """Layers with random weights."""
        super().__init__()
        self.up = nn.ConvTranspose2d(3, 4, 2, stride=2)
        self.body = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(inplace=True))
        self.line = nn.Conv1d(4, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """float[B, 3, h, w] → float[B, 8, 2h, 2w], float[2B, 4, …]."""
        y = self.body(self.up(x))
        b, c, h, w = y.shape
        return y, self.line(y.reshape(b * 2, c // 2, h * w))


class Named(nn.Module):
    """Returns a dict and has a buffer and a loop."""

    def __init__(self) -> None:
        """Layers with random weights."""
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """float[B, 3, h, w] → the image and its mean."""
        for _ in range(2):
            x = torch.relu(x * self.scale)
        y = self.conv(x)
        return {"image": y, "mean": y.view(y.size(0), -1).mean(1)}


@pytest.mark.parametrize("make", [torch.jit.trace, torch.jit.script], ids=["traced", "scripted"])
@pytest.mark.parametrize("net", [plain_net, Shapes, Named], ids=lambda net: net.__name__)
def test_a_script_becomes_a_graph_with_a_free_batch(make: Callable[..., Any], net: Callable[[], nn.Module]) -> None:
    module = net().eval()
    script = torch.jit.trace(module, image(), strict=False) if make is torch.jit.trace else torch.jit.script(module)
    graph = script_to_fx(script, (image(),))
    program = torch.export.export(graph, (image(),), dynamic_shapes=({0: Dim.AUTO},))
    other = torch.randn(5, 3, 8, 8)
    torch.testing.assert_close(program.module(check_guards=False)(other), module(other), rtol=0, atol=1e-6)
    assert dict(graph.named_parameters()).keys() == dict(module.named_parameters()).keys()
    assert {name for name, _ in graph.named_buffers()} <= {name for name, _ in module.named_buffers()}
    targets = {str(node.target) for node in graph.graph.nodes}
    assert not [target for target in targets if "_convolution" in target or "_tensor_constant" in target]


def test_a_frozen_script_keeps_its_weights_as_constants(tmp_path: Path) -> None:
    module = plain_net().eval()
    torch.jit.save(torch.jit.freeze(torch.jit.script(module)), tmp_path / "net.pt")
    graph = script_to_fx(load(tmp_path / "net.pt").module, (image(),))
    assert all(name.startswith("constant_") for name, _ in graph.named_buffers())
    torch.testing.assert_close(graph(image()), module(image()), rtol=0, atol=1e-5)


class Halved(nn.Module):
    """Its output has a size that is no multiple of the batch."""

    def forward(self, x: Tensor) -> Tensor:
        """float[B, …] → float[B // 2 + 1, …]."""
        return x[: x.size(0) // 2 + 1]


def test_a_batch_that_cannot_be_free_is_kept_as_it_is() -> None:
    graph = script_to_fx(torch.jit.script(Halved()), (image(),))
    assert torch.equal(graph(image()), image()[:2])


class OneRow(nn.Module):
    """Made for a batch of one."""

    def forward(self, x: Tensor) -> Tensor:
        """float[1, 3, 8, 8] → float[1, 192]."""
        return x.view(1, 192)


def test_a_script_for_one_row_only_is_kept_as_it_is() -> None:
    one = image()[:1]
    graph = script_to_fx(torch.jit.script(OneRow()), (one,))
    assert torch.equal(graph(one), one.flatten(1))


class Branching(nn.Module):
    """Depends on the numbers themselves."""

    def forward(self, x: Tensor) -> Tensor:
        """float[…] → float[…]."""
        if bool(x.sum() > 0):
            return x
        return -x


@pytest.mark.parametrize(
    ("module", "shape", "message"),
    [
        (Branching().eval(), (2, 3), "Branching: reads numbers out of its tensors (aten.item.default)"),
        (nn.Conv2d(3, 4, 3).eval(), (2, 5, 8, 8), "to have 3 channels, but got 5 channels instead"),
        (nn.Dropout(0.5).train(), (2, 3), "training mode (aten.dropout.default trains)"),
    ],
    ids=["branch", "shape", "training"],
)
def test_a_script_that_cannot_be_followed_says_why(module: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(TraceError) as caught:
        script_to_fx(torch.jit.script(module), (torch.ones(shape),))
    assert message in caught.value.message


# Real files


@pytest.mark.parametrize("depth", [20, 56])
def test_trained_networks_agree_in_every_format(depth: int, models: Path) -> None:
    script = load(models / f"resnet{depth}_torchscript.pt").module
    program = load(models / f"resnet{depth}.pt2")
    x = torch.randn(3, 3, 32, 32)
    graph = script_to_fx(script, (x,))
    with torch.no_grad():
        torch.testing.assert_close(graph(x), script(x), rtol=0, atol=0)
        torch.testing.assert_close(program.module(x), script(x), rtol=0, atol=1e-4)
    assert program.input_size == (3, 32, 32)
    assert dict(graph.named_parameters()).keys() == dict(program.module.named_parameters()).keys()
    exported = torch.export.export(graph, (x,), dynamic_shapes=({0: Dim.AUTO},))
    assert not isinstance(next(iter(exported.graph.find_nodes(op="output"))).args[0][0].meta["val"].shape[0], int)


@pytest.mark.parametrize("name", ["resnet20_state.pt", "resnet20_checkpoint.pth"])
def test_trained_weights_ask_for_their_architecture(name: str, models: Path) -> None:
    assert "this is a state_dict (" in refusal(models / name).message

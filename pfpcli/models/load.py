"""From a file to a network that can be called, told by its content and never by its suffix.

In: ONNX, TorchScript, a .pt2 ExportedProgram, a module, a state dict or a checkpoint that holds one of the two.
Out: a `LoadedModel`, in eval mode and on the CPU.
Refused: everything that is none of these (saying what it is), files that would run code (see `pickles`), weights
without an architecture (see `arch`), weights that are not finite, and networks without weights.

To add an input format, add a row to `LOADERS`.
"""

from __future__ import annotations

import hashlib
import logging
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from pfpcli.errors import InputError
from pfpcli.graph.graph import Names
from pfpcli.models import arch as architecture
from pfpcli.models.pickles import broken, check_program, unpickle
from pfpcli.models.torchscript import training_op
from pfpcli.onnx_io.network import read_onnx

# Where training scripts keep the model or its weights, in the order of preference.
HOLDERS = ("state_dict", "model_state_dict", "model", "net", "network", "params", "ema", "model_ema", "state_dict_ema")


@dataclass(frozen=True)
class LoadedModel:
    """A network as it came.

    Attributes:
        name: file name without folders, e.g. "model.pt".
        kind: "module", "state_dict" (also of a checkpoint), "torchscript", "pt2" or "onnx".
        module: callable on a batch (N, …); in eval mode, on the CPU.
        program: the ExportedProgram itself, for pt2 only.
        input_size: shape of one input without the batch, where the file or the library knows it.
        sha256: of the file's bytes, in hex.
        batch: the only batch size that the network takes, if the file says so.
        names: of its inputs and outputs, where the file has them and the forward does not.
    """

    name: str
    kind: str
    module: nn.Module
    program: torch.export.ExportedProgram | None
    input_size: tuple[int, ...] | None
    sha256: str
    batch: int | None = None
    names: Names | None = None

    def takes(self, size: tuple[int, ...]) -> bool:
        """Whether the forward pass gets through with one input of that shape."""
        try:
            with torch.no_grad():
                self.module(torch.zeros(self.batch or 1, *size))
        except Exception:
            return False
        return True


@dataclass(frozen=True)
class Artefact:
    """A file that was found, before it is known what it is.

    Attributes:
        path: where it is.
        size: bytes.
        head: its first bytes.
        members: names in the zip archive that it is; None if it is none.
        sha256: of all its bytes, in hex.
    """

    path: Path
    size: int
    head: bytes
    members: tuple[str, ...] | None
    sha256: str

    @property
    def name(self) -> str:
        """File name without folders."""
        return self.path.name

    def has(self, *inner: str) -> bool:
        """Whether the archive holds one of these, a file or a folder/, under its one top folder."""
        below = [member.partition("/")[2] for member in self.members or ()]
        return any(name.startswith(inner) for name in below)


@dataclass(frozen=True)
class Request:
    """What the user said about the file."""

    arch: str | None = None
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False


@dataclass(frozen=True)
class Loader:
    """One input format: its name, how its bytes are recognised, and how it becomes a LoadedModel."""

    name: str
    sniff: Callable[[Artefact], bool]
    load: Callable[[Artefact, Request], LoadedModel]


def load(
    path: Path, *, arch: str | None = None, arch_kwargs: dict[str, Any] | None = None, trust: bool = False
) -> LoadedModel:
    """Load a network from `path`.

    Args:
        path: a file of one of the formats in `LOADERS`.
        arch: what builds the network of a state dict, e.g. "torchvision:resnet18" or "models:resnet20".
        arch_kwargs: keyword arguments for `arch`.
        trust: also load files that run code of their own.

    Raises:
        InputError: see the module's docstring; the message starts with the file's name or with `--arch`.
    """
    artefact = _open(Path(path))
    request = Request(arch, arch_kwargs or {}, trust)
    loader = next((row for row in LOADERS if row.sniff(artefact)), None)
    if loader is None:
        raise _unknown(artefact)
    source = loader.load(artefact, request)
    if (arch or arch_kwargs) and source.kind != "state_dict":
        what = _WHOLE[source.kind]
        raise InputError(f"{source.name}: this is a {what}; --arch is not needed", "leave --arch and --arch-kwargs out")
    _check_weights(source)
    return source


#: What needs no architecture.
_WHOLE = {
    "module": "whole model",
    "torchscript": "TorchScript model",
    "pt2": "exported program",
    "onnx": "whole model",
}


def _load_torchscript(artefact: Artefact, request: Request) -> LoadedModel:
    with artefact.path.open("rb") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.jit is deprecated; the file is what it is
        try:
            script: torch.jit.ScriptModule = torch.jit.load(file, map_location="cpu").eval()
        except Exception as error:
            raise broken(artefact.name, error) from error
    return LoadedModel(artefact.name, "torchscript", script, None, _script_input_size(script), artefact.sha256)


def _load_pt2(artefact: Artefact, request: Request) -> LoadedModel:
    if not artefact.has("models/") and artefact.has("data/aotinductor/"):
        raise InputError(
            f"{artefact.name}: this is a compiled AOTInductor package; it has no graph that could be cut",
            "pass the file that torch.export.save wrote before it was compiled",
        )
    with artefact.path.open("rb") as file:
        if not request.trust:
            check_program(file, artefact.name)
        program = _exported_program(file, artefact.name)
    if op := training_op(program.graph):
        raise InputError(
            f"{artefact.name}: was exported in training mode ({op} trains)", "export it again after model.eval()"
        )
    module = program.module(check_guards=False)
    size, batch = _program_input_size(program), _program_batch(program, artefact.name)
    return LoadedModel(artefact.name, "pt2", module, program, size, artefact.sha256, batch)


def _exported_program(file: BinaryIO, name: str) -> torch.export.ExportedProgram:
    reasons: list[BaseException] = []

    def keep_reason(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            reasons.append(record.exc_info[1])
        return False

    logger = logging.getLogger("torch.export")  # torch logs why it fails, then raises that the log says why
    logger.addFilter(keep_reason)
    try:
        return torch.export.load(file)
    except Exception as error:
        raise broken(name, reasons[0] if reasons else error) from error
    finally:
        logger.removeFilter(keep_reason)


def _load_pickle(artefact: Artefact, request: Request) -> LoadedModel:
    with artefact.path.open("rb") as file:
        content = unpickle(file, artefact.name, request.trust)
    found = _model_in(content)
    if found is None:
        raise InputError(
            f"{artefact.name}: holds {_described(content)}, not a model or its weights",
            "save the model with torch.save(model, path), or its weights with torch.save(model.state_dict(), path)",
        )
    if isinstance(found, nn.Module):
        size = architecture.known_input_size(None, {}, found)
        return LoadedModel(artefact.name, "module", found.cpu().eval(), None, size, artefact.sha256)
    module = _network_for(found, artefact.name, request)
    size = architecture.known_input_size(request.arch, request.arch_kwargs, module)
    return LoadedModel(artefact.name, "state_dict", module, None, size, artefact.sha256)


def _load_onnx(artefact: Artefact, request: Request) -> LoadedModel:
    network = read_onnx(artefact.path)
    batch, *size = network.sizes or (None, None)
    known = None if None in size else tuple(each for each in size if each is not None)
    return LoadedModel(artefact.name, "onnx", network, None, known, artefact.sha256, batch, network.names)


def _load_safetensors(artefact: Artefact, request: Request) -> LoadedModel:
    raise InputError(
        f"{artefact.name}: this is a safetensors file; pfp reads weights that torch.save wrote",
        "convert it with `torch.save(safetensors.torch.load_file(path), 'weights.pt')` and pass that with --arch",
    )


def _is_torchscript(artefact: Artefact) -> bool:
    return artefact.has("data.pkl") and artefact.has("constants.pkl", "code/")


def _is_pt2(artefact: Artefact) -> bool:
    return artefact.has("archive_format") or "serialized_exported_program.json" in (artefact.members or ())


def _is_torch_pickle(artefact: Artefact) -> bool:
    zipped = artefact.has("data.pkl") and not _is_torchscript(artefact)
    return zipped or (artefact.head[:1] == b"\x80" and _LEGACY_MAGIC in artefact.head)


def _is_onnx(artefact: Artefact) -> bool:
    """Whether the bytes are fields of ONNX's ModelProto up to their end, one of them the graph; skips their content."""
    seen: set[int] = set()
    with artefact.path.open("rb") as file:
        while file.tell() < artefact.size:
            tag = _varint(file)
            length = _varint(file)
            if tag is None or length is None or tag not in _ONNX_TAGS:
                return False
            seen.add(tag)
            if tag & 7 == _LENGTH_DELIMITED:
                file.seek(length, 1)
        return file.tell() == artefact.size and _ONNX_GRAPH in seen


def _is_safetensors(artefact: Artefact) -> bool:
    return int.from_bytes(artefact.head[:8], "little") < artefact.size and artefact.head[8:10] == b'{"'


LOADERS: tuple[Loader, ...] = (
    Loader("pt2", _is_pt2, _load_pt2),
    Loader("torchscript", _is_torchscript, _load_torchscript),
    Loader("pickle", _is_torch_pickle, _load_pickle),
    Loader("onnx", _is_onnx, _load_onnx),
    Loader("safetensors", _is_safetensors, _load_safetensors),
)

# The number 0x1950a86a20f9469cfc6c with which torch.save began before version 1.6, as a pickle writes it.
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")

# Protobuf: tag = field number << 3 | wire type; 0 is a number, 2 something with a length.
_LENGTH_DELIMITED = 2
_ONNX_GRAPH = 7 << 3 | 2
# ir_version and model_version; names, versions, doc, graph, opsets, metadata, training, functions, configuration.
_ONNX_TAGS = {1 << 3, 5 << 3, *(number << 3 | 2 for number in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26))}


def _varint(file: BinaryIO) -> int | None:
    """The next protobuf number; None at the end of the file or if it is longer than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None


def _open(path: Path) -> Artefact:
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if child.is_file())
        hint = f"pass a file in it, e.g. `{path.name}/{inside[0]}`" if inside else "pass a file"
        raise InputError(f"{path.name or path}: this is a folder, expected a file", hint)
    if not path.exists():
        beside = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        where = "" if path.parent.is_dir() else f"; there is no folder {path.parent.name} either"
        raise InputError(f"{path.name}: there is no such file{where}", architecture.nearest(path.name, beside))
    try:
        with path.open("rb") as file:
            head = file.read(64)
            digest = hashlib.sha256(head)
            while chunk := file.read(1 << 20):
                digest.update(chunk)
            size = file.tell()
    except OSError as error:
        raise InputError(f"{path.name}: cannot be read ({error.strerror})") from error
    if not size:
        raise InputError(f"{path.name}: this file is empty", "copy or download it again")
    return Artefact(path, size, head, _members(path, size, head), digest.hexdigest())


def _members(path: Path, size: int, head: bytes) -> tuple[str, ...] | None:
    if head[:4] != b"PK\x03\x04":
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            return tuple(archive.namelist())
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path.name}: this zip archive has no end; the file was cut off after {size:,} bytes",
            "copy or download it again, or save it again",
        ) from error


def _unknown(artefact: Artefact) -> InputError:
    formats = "pfp reads ONNX and PyTorch files: modules, state dicts, TorchScript and .pt2 programs"
    if artefact.members is not None:
        what = "this is a zip archive, but not one that torch wrote"
    elif artefact.head.startswith(b"version https://git-lfs"):
        return InputError(f"{artefact.name}: this is a Git LFS pointer, not the file itself", "run `git lfs pull`")
    elif artefact.head[:1] == b"\x80" and artefact.head[1:2] in b"\x02\x03\x04\x05":
        what = "this is a pickle, but not one that torch.save wrote"
    elif _is_text(artefact.head):
        what = "this is a text file"
    else:
        what = f"this is no format that pfp knows (it begins with {artefact.head[:8].hex(' ')})"
    return InputError(f"{artefact.name}: {what}; {formats}", "save the model with torch.save(model, path)")


def _is_text(head: bytes) -> bool:
    text = head.decode("utf-8", "replace").rstrip("\ufffd")  # the last character may be cut
    return bool(text) and "\ufffd" not in text and "".join(text.split()).isprintable()


def _model_in(content: Any) -> nn.Module | dict[str, Tensor] | None:
    """The module or the state dict that `content` is or holds; by its key, or because there is only one."""
    direct = _module_or_weights(content)
    if direct is not None or not isinstance(content, Mapping):
        return direct
    found = {key: _module_or_weights(value) for key, value in content.items()}
    held = {key: value for key, value in found.items() if value is not None}
    return next((held[key] for key in HOLDERS if key in held), next(iter(held.values())) if len(held) == 1 else None)


def _module_or_weights(value: Any) -> nn.Module | dict[str, Tensor] | None:
    if isinstance(value, nn.Module):
        return value
    if not isinstance(value, Mapping) or not value:
        return None
    tensors = {key: part for key, part in value.items() if isinstance(key, str) and isinstance(part, Tensor)}
    return tensors if len(tensors) == len(value) else None


def _network_for(weights: Mapping[str, Tensor], name: str, request: Request) -> nn.Module:
    if request.arch is None:
        raise InputError(
            f"{name}: this is a state_dict ({len(weights)} tensors), not a model; pfp needs the architecture too",
            "pass the function that builds it, e.g. `--arch torchvision:resnet18` or `--arch models:resnet20`",
        )
    module = architecture.build(request.arch, request.arch_kwargs)
    architecture.fit(name, module, weights, request.arch, request.arch_kwargs)
    return module.cpu().eval()


def _described(content: Any) -> str:
    if isinstance(content, Mapping):
        keys = [repr(key) for key in list(content)[:4]] + ["…"] * (len(content) > 4)
        return f"a dict with the keys {', '.join(keys)}" if keys else "an empty dict"
    if isinstance(content, list | tuple):
        return f"a {type(content).__name__} of {len(content)}"
    return f"a {type(content).__name__}"


def _script_input_size(script: torch.jit.ScriptModule) -> tuple[int, ...] | None:
    for value in list(script.graph.inputs())[1:2]:  # the first is the module itself
        sizes = getattr(value.type(), "sizes", lambda: None)()
        if sizes and all(isinstance(size, int) for size in sizes):
            return tuple(sizes[1:])
    return None


def _program_input_size(program: torch.export.ExportedProgram) -> tuple[int, ...] | None:
    """Shape of the first tensor input without the batch; symbolic sizes count as what they were at the export."""
    names = program.graph_signature.user_inputs
    for node in program.graph.find_nodes(op="placeholder"):
        value = node.meta.get("val")
        if node.name in names and isinstance(value, Tensor):
            sizes = [size if isinstance(size, int) else size.node.hint for size in value.shape[1:]]
            return None if None in sizes else tuple(sizes)
    return None


def _program_batch(program: torch.export.ExportedProgram, name: str) -> int | None:
    """The batch size that a program was exported for, None if it is free."""
    inputs = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise InputError(
            f"{name}: takes {len(inputs)} inputs ({names}); calibration images feed exactly one",
            "wrap the model in a module whose forward takes one tensor, and export that",
        )
    size = inputs[0].meta["val"].shape[0]
    return size if isinstance(size, int) else None


def _check_weights(source: LoadedModel) -> None:
    """Refuse networks without parameters and numbers that no score could be made of."""
    parameters = dict(source.module.named_parameters())
    buffers = dict(source.module.named_buffers())
    # A frozen script keeps its weights as constants.
    if not parameters and source.kind != "torchscript":
        what = "graph" if source.kind == "onnx" else type(source.module).__name__
        hint = "export it with its weights in it" if source.kind == "onnx" else ""
        raise InputError(f"{source.name}: holds a {what} without parameters; nothing can be cut", hint)
    for name, value in (parameters | buffers).items():
        if not (value.is_floating_point() or value.is_complex()) or value.isfinite().all():
            continue
        nans = int(value.isnan().sum())
        # Attention masks are buffers and hold -inf on purpose.
        infinities = int((value.isinf() if name in parameters else value.isposinf()).sum())
        if nans or infinities:
            what = " and ".join(f"{n:,} {word}" for n, word in ((nans, "NaN"), (infinities, "infinite")) if n)
            raise InputError(
                f"{source.name}: {name} holds {what} of {value.numel():,} numbers",
                "use a checkpoint from before the training diverged",
            )

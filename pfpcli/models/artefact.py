"""A file before its format is known: its bytes, and how each format is recognised by them, never by the suffix."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from pfpcli.errors import InputError
from pfpcli.limits import check_file, check_unpacked
from pfpcli.models.arch import nearest


@dataclass(frozen=True)
class Artefact:
    """A file before its format is known.

    Attributes:
        path: its path.
        size: its size in bytes.
        head: its first 64 bytes.
        members: names of the members of a zip archive, None for another file.
        sha256: sha256 of all its bytes, in hex.
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
        """Whether the archive has a member whose path below the one top folder starts with one of these."""
        below = [member.partition("/")[2] for member in self.members or ()]
        return any(name.startswith(inner) for name in below)


@dataclass(frozen=True)
class LoadOptions:
    """What the user says about a file.

    Attributes:
        arch: the factory of the network of a state dict, e.g. "torchvision:resnet18".
        arch_kwargs: keyword arguments of the factory.
        trust: whether the file may run code.
    """

    arch: str | None = None
    arch_kwargs: Mapping[str, Any] = field(default_factory=dict)
    trust: bool = False


def open_artefact(path: Path) -> Artefact:
    """Read the bytes of a file.

    Raises:
        InputError: it is a folder, a device, a pipe, missing, empty or unreadable, or a zip archive that was cut off.
    """
    if path.is_dir():
        inside = sorted(child.name for child in path.iterdir() if child.is_file())
        hint = f"pass a file in it, e.g. `{path.name}/{inside[0]}`" if inside else "pass a file"
        raise InputError(f"{path.name or path}: this is a folder, expected a file", hint)
    if not path.exists():
        beside = [child.name for child in path.parent.iterdir()] if path.parent.is_dir() else []
        where = "" if path.parent.is_dir() else f"; there is no folder {path.parent.name} either"
        raise InputError(f"{path.name}: there is no such file{where}", nearest(path.name, beside))
    check_file(path)
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
            check_unpacked(path.name, size, sum(member.file_size for member in archive.infolist()))
            return tuple(archive.namelist())
    except InputError:
        raise
    except Exception as error:  # zipfile raises errors of many kinds
        raise InputError(
            f"{path.name}: this zip archive has no end; it was cut off or changed ({size:,} bytes)",
            "copy or download it again, or save it again",
        ) from error


def is_torchscript(artefact: Artefact) -> bool:
    """Whether torch.jit.save wrote the file."""
    return artefact.has("data.pkl") and artefact.has("constants.pkl", "code/")


def is_pt2(artefact: Artefact) -> bool:
    """Whether torch.export.save wrote the file."""
    return artefact.has("archive_format") or "serialized_exported_program.json" in (artefact.members or ())


def is_torch_pickle(artefact: Artefact) -> bool:
    """Whether torch.save wrote the file, as a zip archive or in the format before torch 1.6."""
    zipped = artefact.has("data.pkl") and not is_torchscript(artefact)
    return zipped or (artefact.head[:1] == b"\x80" and _LEGACY_MAGIC in artefact.head)


def is_onnx(artefact: Artefact) -> bool:
    """Whether the file is a sequence of fields of ONNX's ModelProto that includes the graph; skips their content."""
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


def is_safetensors(artefact: Artefact) -> bool:
    """Whether the file begins with the header of a safetensors file."""
    return int.from_bytes(artefact.head[:8], "little") < artefact.size and artefact.head[8:10] == b'{"'


def is_text(artefact: Artefact) -> bool:
    """Whether the file begins with printable text."""
    text = artefact.head.decode("utf-8", "replace").rstrip("\ufffd")  # the last character may be cut
    return bool(text) and "\ufffd" not in text and "".join(text.split()).isprintable()


# The number 0x1950a86a20f9469cfc6c with which torch.save began before version 1.6, as a pickle writes it.
_LEGACY_MAGIC = bytes.fromhex("8a0a6cfc9c46f9206aa85019")

# Protobuf: tag = field number << 3 | wire type; type 0 is a number, type 2 has a length.
_LENGTH_DELIMITED = 2
_ONNX_GRAPH = 7 << 3 | 2
# ir_version and model_version; names, versions, doc, graph, opsets, metadata, training, functions, configuration.
_ONNX_TAGS = {1 << 3, 5 << 3, *(number << 3 | 2 for number in (2, 3, 4, 6, 7, 8, 14, 20, 25, 26))}


def _varint(file: BinaryIO) -> int | None:
    """Read a protobuf number; None at the end of the file, or if the number is longer than 64 bits."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            return None
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    return None

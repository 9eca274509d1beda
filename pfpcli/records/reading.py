"""Reading of run.json: the types of all fields are checked, and a wrong field is named."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, TypedDict

import msgspec

from pfpcli.errors import InputError
from pfpcli.limits import read_document
from pfpcli.records.details import Details
from pfpcli.records.folders import FILES
from pfpcli.records.runs import AnyRun, Record, Run, SparseRun, TunedRun

#: A name of a file in the run folder: a record names no file elsewhere.
_Name = Annotated[str, msgspec.Meta(pattern=r"^[^/\\\x00]+$")]


class _Model(TypedDict):
    name: str
    kind: str
    sha256: str | None
    input_size: list[Annotated[int, msgspec.Meta(ge=1)]]


class _Artifacts(TypedDict):
    onnx: _Name | None
    pt2: _Name | None
    pt: _Name | None


class _Used(TypedDict):
    """What later commands use of the parts of a record that have no type of their own."""

    model: _Model
    artifacts: _Artifacts


_KINDS: dict[str, type[AnyRun]] = {kind.kind: kind for kind in (Run, SparseRun, TunedRun)}

#: The form of msgspec's messages: what is wrong, and where.
_MESSAGE = re.compile(r"(?P<what>.*?)(?: - at `\$\.?(?P<field>.*)`)?", re.DOTALL)


def read(path: Path) -> AnyRun:
    """Read the record of a run.

    Unknown keys are ignored. A record without a kind is one of `pfp compress`.

    Args:
        path: the run folder, or its run.json.

    Raises:
        InputError: there is no record, it has another schema version, or one of its fields is missing or wrong.
    """
    file = path / FILES["run"] if path.is_dir() else path
    try:
        content = msgspec.json.decode(read_document(file))
    except FileNotFoundError:
        raise InputError(
            f"{path.name}: no run here (no {FILES['run']})",
            "name a run folder, e.g. `pfp report pfp-runs/model-keep0.40`",
        ) from None
    except (ValueError, msgspec.DecodeError, RecursionError) as error:  # not JSON, not UTF-8, or nested too deeply
        raise _not_a_record(path, str(error)) from error
    kind = _kind(path, content)
    try:
        msgspec.convert(content, _Used)
        return msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        where = f"{path.name}: {file.name}" if file != path else file.name
        raise InputError(
            f"{where}: {_named_field(str(error))}", "name a run folder whose run.json is as pfp wrote it"
        ) from error


def read_details(path: Path) -> Details | None:
    """Read the details of a run.

    Args:
        path: the run folder, or its run.json.

    Returns:
        The details, or None where there are none: older runs lack them, and they may be removed.

    Raises:
        InputError: they have another schema version, or one of their fields is missing or wrong.
    """
    folder, name = path if path.is_dir() else path.parent, FILES["details"]
    try:
        found = msgspec.json.decode(read_document(folder / name), type=Details)
    except FileNotFoundError:
        return None
    except (ValueError, msgspec.DecodeError, RecursionError) as error:
        raise InputError(
            f"{path.name}: {name}: {_named_field(str(error))}", f"remove {name}: the page is made without it then"
        ) from error
    if found.schema_version != Details.schema_version:
        raise InputError(
            f"{path.name}: {name}: schema version {found.schema_version}, this pfp reads {Details.schema_version}",
            f"remove {name}: the page is made without it then",
        )
    return found


def incomplete(path: Path, error: Exception) -> InputError:
    """Return the error of a record whose fields have the right types and cannot be shown: a key of a dict is missing.

    Args:
        path: as in `read`.
        error: what the report met.
    """
    return InputError(
        f"{path.name}: {FILES['run']} cannot be shown ({type(error).__name__}: {' '.join(str(error).split())[:80]})",
        "name a run folder whose run.json is as pfp wrote it",
    )


def _kind(path: Path, content: Any) -> type[AnyRun]:
    """Return the type of a record.

    Raises:
        InputError: it is no record, or one of another schema version.
    """
    if not isinstance(content, dict) or "schema_version" not in content:
        raise _not_a_record(path, "it has no schema_version")
    if content["schema_version"] != Record.schema_version:
        raise InputError(
            f"{path.name}: schema version {content['schema_version']}, this pfp reads version {Record.schema_version}",
            "use the pfp that wrote it, or compress again",
        )
    kind = _KINDS.get(str(content.get("kind", Run.kind)))
    if kind is None:
        raise _not_a_record(path, f"kind {content['kind']}")
    return kind


def _not_a_record(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path.name}: not a run record ({reason})", "name a folder that `pfp compress` or `pfp sparsify` wrote"
    )


def _named_field(message: str) -> str:
    """Return a message of msgspec with the field first: `before.params: expected int, found str`."""
    parts = _MESSAGE.fullmatch(message)
    what, field = (parts["what"], parts["field"]) if parts else (message, None)
    what = what.replace("`", "").replace(", got ", ", found ").replace("Object missing", "missing")
    what = what[:1].lower() + what[1:]
    return f"{field}: {what}" if field else what

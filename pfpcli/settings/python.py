"""Values as they are written in Python: keyword arguments become the fields of a settings class.

A path may be a string, a sequence a list, a size a pair of numbers. A value of another type is refused with the name of
the argument, the value that was found and the type that was expected.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from pfpcli.errors import InputError
from pfpcli.settings.max_drop import MaxDrop, parse_max_drop
from pfpcli.settings.network import InMemoryModel, NetworkSettings
from pfpcli.settings.text import parse_keep, parse_names

_S = TypeVar("_S", bound=NetworkSettings)

#: Type of a field -> what is expected, in words.
_EXPECTED: dict[Any, str] = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a string",
    Path: "a path",
    Path | InMemoryModel: "a path or a torch.nn.Module",
    tuple[int, ...]: "a sequence of whole numbers",
    tuple[float, ...]: "a sequence of numbers",
    tuple[str, ...]: "a sequence of strings",
    dict[str, Any]: "a dictionary with strings as keys",
    str | float: "a number, or a text such as '60%'",
    MaxDrop: "a number, or a text such as '1%' or '0.5dB'",
}


def from_python(kind: type[_S], values: Mapping[str, Any]) -> _S:
    """Return settings made of keyword arguments.

    Args:
        kind: the class of the settings.
        values: name of a field -> value.

    Raises:
        InputError: there is no such field, a field is missing, or a value has another type or is out of range.
    """
    hints = get_type_hints(kind)
    known = [field.name for field in fields(kind)]
    for name in values:
        if name not in known:
            close = get_close_matches(name, known, 1)
            hint = f"did you mean `{close[0]}`?" if close else f"the arguments are {', '.join(known)}"
            raise InputError(f"{name}: no such argument", hint)
    return kind(**{name: _value(name, value, hints[name]) for name, value in values.items()})


def _value(name: str, value: Any, hint: Any) -> Any:
    """The value of a field, converted to its type."""
    expected = next(words for kind, words in _EXPECTED.items() if hint in (kind, kind | None))
    if hint not in _EXPECTED:
        if value is None:
            return None
        hint = next(kind for kind in _EXPECTED if hint == kind | None)
    refusal = InputError(f"{name}={value!r}: expected {expected}, found {type(value).__name__}", _hint(name))
    value = _plain(_WRITTEN.get(name, lambda same: same)(value))
    if hint in (Path, Path | InMemoryModel):
        if isinstance(value, InMemoryModel) and hint is not Path:
            return value
        if not isinstance(value, str | os.PathLike):
            raise refusal
        return Path(value)
    if hint is MaxDrop:
        if not isinstance(value, MaxDrop):
            raise refusal
        return value
    if isinstance(value, Iterable) and not isinstance(value, str | Mapping | tuple):
        value = tuple(_plain(each) for each in value)
    try:
        return msgspec.convert(value, hint)
    except msgspec.ValidationError:
        raise refusal from None


def _plain(value: Any) -> Any:
    """The number in an array or a tensor without dimensions; any other value as it is."""
    return value.item() if getattr(value, "shape", None) == () else value


def _hint(name: str) -> str:
    examples = {"mean": "mean=[0.485, 0.456, 0.406]", "std": "std=[0.229, 0.224, 0.225]", "resize": "resize=(224, 224)"}
    examples |= {"keep": "keep=0.4", "input_size": "input_size=(3, 224, 224)", "recover": 'recover=["lsq"]'}
    return f"for example `{examples[name]}`" if name in examples else ""


def _resize(value: Any) -> Any:
    if isinstance(value, tuple | list) and all(isinstance(side, int) for side in value):
        return "x".join(map(str, value))
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _keep(value: Any) -> Any:
    return parse_keep(value) if isinstance(value, str) else value


def _max_drop(value: Any) -> Any:
    if isinstance(value, str):
        return parse_max_drop(value)
    value = _plain(value)
    return MaxDrop(float(value)) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _keeps(value: Any) -> Any:
    return [_keep(each) for each in value] if isinstance(value, tuple | list) else [_keep(value)]


def _names(value: Any) -> Any:
    return parse_names(value) if isinstance(value, str) else value


def _one_or_more(value: Any) -> Any:
    return (value,) if isinstance(value, str | int | float) and not isinstance(value, bool) else value


#: Field -> what converts other ways of writing its value.
_WRITTEN: dict[str, Callable[[Any], Any]] = {
    "keep": _keep,
    "keeps": _keeps,
    "max_drop": _max_drop,
    "resize": _resize,
    "recover": lambda value: () if value is None else _names(value),
    "criteria": _names,
    "freeze": _one_or_more,
    "mean": _one_or_more,
    "std": _one_or_more,
    "preprocess": lambda value: os.fspath(value) if isinstance(value, os.PathLike) else value,
    "device": lambda value: getattr(value, "type", value),
}

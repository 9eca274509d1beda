"""Write docs/run.schema.json: the JSON schema of run.json, as the records define it.

    python docs/make_schema.py

Imports no torch. `make reference` runs it, and tests/docs/test_schema.py fails when the file is stale.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import msgspec

from pfpcli import records
from pfpcli.records.runs import Record, Run, SparseRun, TunedRun

FILE = Path(__file__).with_name("run.schema.json")

_KINDS = (Run, SparseRun, TunedRun)
#: An attribute in the docstring of a record: its names, and what it is, in lines that are indented further.
_ATTRIBUTE = re.compile(r"(?m)^    (\w+(?:, \w+)*): (.*(?:\n {8}.*)*)")


def schema() -> str:
    """The schema as text."""
    references, definitions = msgspec.json.schema_components(_KINDS)
    for name, found in definitions.items():
        _describe(_records()[name], found)
    for kind in _KINDS:
        properties = definitions[kind.__name__]["properties"]
        properties["kind"]["const"], properties["schema_version"]["const"] = kind.kind, Record.schema_version
    whole = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "run.json",
        "description": "What pfp compress, pfp sparsify and pfp finetune record about a run.",
        "oneOf": list(references),
        "$defs": definitions,
    }
    return json.dumps(whole, indent=1, ensure_ascii=False) + "\n"


def _records() -> dict[str, type]:
    """Name -> class of every record and part of a record."""
    modules = [import_module(f"pfpcli.records.{each.name}") for each in iter_modules(records.__path__)]
    found = {name: each for module in modules for name, each in vars(module).items()}
    return {name: each for name, each in found.items() if isinstance(each, type) and is_dataclass(each)}


def _describe(record: type, found: dict[str, Any]) -> None:
    """Give a definition the first sentence of the docstring, and its properties what the docstrings say of them."""
    found["description"] = (inspect.getdoc(record) or "").partition("\n")[0]
    for name, meaning in _attributes(record):
        if name in found["properties"]:
            found["properties"][name]["description"] = meaning


def _attributes(record: type) -> Iterator[tuple[str, str]]:
    """Yield the attributes in the docstrings of a record and of the records that it extends."""
    for each in reversed(record.__mro__):
        for names, meaning in _ATTRIBUTE.findall(inspect.cleandoc(each.__doc__ or "")):
            yield from ((name, " ".join(meaning.split())) for name in names.split(", "))


if __name__ == "__main__":
    FILE.write_text(schema(), encoding="utf-8")

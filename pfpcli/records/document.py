"""The base of all documents: a dataclass that is written as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Document:
    """What a command writes or prints as JSON.

    A document is a dataclass; its fields are the keys of the JSON, in the same order. Each document has a field
    `schema_version` with a default, which is raised when another field changes its meaning or is removed. A new field
    with a default does not raise it.
    """

    def json(self, folder: str | None = None, *, compact: bool = False) -> str:
        """Write the document as JSON.

        Args:
            folder: value of a last key "folder": where the document was written. None: the key is left out.
            compact: all values in one line; otherwise each value has a line of its own.
        """
        content = asdict(self)
        if folder is not None:
            content["folder"] = folder
        layout: dict[str, Any] = {"separators": (",", ":")} if compact else {"indent": 1}
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, **layout) + "\n"
        return text.encode("utf-8", "replace").decode()  # a file name may hold bytes that are no UTF-8

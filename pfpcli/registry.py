"""Registers: tables of named rows, such as the criteria and the allocators.

A register is a dictionary in which no name is there twice: a dictionary literal would silently keep the last row. A row
may name its function as "module:function", so that a table can be read (for --help) without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, TypeVar

_Row = TypeVar("_Row")


def register(*rows: tuple[str, _Row]) -> dict[str, _Row]:
    """Build a register.

    Args:
        rows: a name and a row each.

    Raises:
        ValueError: two rows have the same name.
    """
    table: dict[str, _Row] = {}
    for name, row in rows:
        if name in table:
            raise ValueError(f"{name} is registered twice")
        table[name] = row
    return table


def resolve(package: str, function: str) -> Any:
    """Import the function of a row.

    Args:
        package: dotted name of the package that has the module.
        function: "module:function".
    """
    module, _, name = function.partition(":")
    return getattr(import_module(f"{package}.{module}"), name)

"""Commands: one module each, which joins the program when it is imported. Flags in, settings out.

Nothing here imports torch before a command needs it. A command is the file of the same name here, in `settings` and in
`jobs`; `report` and `compare` read records alone and have neither.
"""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

#: The commands that `pfp --help` lists first; the others follow in the order of their names.
_FIRST = ("compress", "report", "inspect")


def join_all() -> None:
    """Import every module of this package, in the order of `pfp --help`."""
    names = [module.name for module in iter_modules(__path__)]
    for name in (*_FIRST, *(name for name in names if name not in _FIRST)):
        import_module(f"{__name__}.{name}")

"""Names of the modules and tensors of a network that comes from a file or from the caller."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from pfpcli.errors import InputError
from pfpcli.graph.safe_names import is_safe


def check_names(module: nn.Module, file: str) -> None:
    """Check the names of all modules, parameters and buffers of a network.

    Args:
        module: the network.
        file: its name, for the message.

    Raises:
        InputError: a name is no string, has a dot or a character that could run as code, or is a word of Python.
    """
    for name in _names(module):
        if not is_safe(name) or "." in str(name):
            raise InputError(
                f"{file}: a module or tensor is named {str(name)!r:.60}; a name must be a string without quotes, "
                "backslashes, line breaks and dots, and no word of Python",
                "rename it, and save the model again",
            )


def _names(module: nn.Module) -> Iterator[object]:
    for part in module.modules():
        for held in (part.named_children(), part.named_parameters(recurse=False), part.named_buffers(recurse=False)):
            yield from (name for name, _ in held)

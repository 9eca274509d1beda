"""Safe names: torch writes the names of modules and tensors into the source code of a graph, and escapes nothing.

A name with a quote would end the string that it stands in, and the rest of the name would run as code. Names that come
from a file are therefore refused or replaced before a graph is made of them.
"""

from __future__ import annotations

import re

#: Characters that can end a string literal or a line of source code.
UNSAFE = re.compile("[\"'\\\\\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_safe(name: object) -> bool:
    """Whether a name can stand in generated source code."""
    return isinstance(name, str) and not UNSAFE.search(name)

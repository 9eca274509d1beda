"""Safe names: torch writes the names of modules and tensors into the source code of a graph, and escapes nothing.

A name with a quote would end the string that it stands in, and the rest of the name would run as code. Names that come
from a file are therefore refused or replaced before a graph is made of them. So are words of Python: torch writes
`self.class.weight`, and the .pt2 file of such a network would open nowhere.
"""

from __future__ import annotations

import re
from keyword import iskeyword

#: Characters that can end a string literal or a line of source code.
UNSAFE = re.compile("[\"'\\\\\x00-\x1f\x7f-\x9f\u2028\u2029]")


def is_safe(name: object) -> bool:
    """Whether a name, or a dotted one, can stand in generated source code."""
    return isinstance(name, str) and not UNSAFE.search(name) and not any(map(iskeyword, name.split(".")))

"""Class names: the classes of a network in the order of its outputs, and the class folders that they number.

A folder of some of a network's classes is numbered rightly only by the list of all of them.
"""

from __future__ import annotations

from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from pfpcli.errors import CalibrationError, InputError
from pfpcli.images.folder import ImageSet


def read_class_names(file: Path) -> tuple[str, ...]:
    """Return the names in a text file with one class in a line, in the order of the network's outputs.

    Raises:
        InputError: the file is missing, is no text, or holds a name twice or fewer than two names.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "not a text in UTF-8"
        raise InputError(f"--classes {file.name}: cannot be read ({why})", "one class name in each line") from None
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) < 2:
        raise InputError(f"--classes {file.name}: found {len(lines)} names, expected one class name in each line")
    seen: set[str] = set()
    for number, line in enumerate(lines, 1):
        if line in seen:
            raise InputError(
                f"--classes {file.name}: line {number}: {line!r} is there already", "each class has one line"
            )
        seen.add(line)
    return tuple(lines)


def number_by_names(images: ImageSet, names: tuple[str, ...]) -> ImageSet:
    """Return a folder whose labels are the places of its class folders in a list of names.

    Labels of a .npz are numbers of outputs already.

    Args:
        images: the folder.
        names: all classes, in the order of the network's outputs.

    Raises:
        CalibrationError: a class folder is not in the list.
    """
    if images.classes is None or images.labels is None:
        return images
    for folder in images.classes:
        if folder not in names:
            close = get_close_matches(folder, names, 1)
            raise CalibrationError(
                f"{images.name}: the class folder {folder} is not among the {len(names)} names of --classes",
                f"did you mean {close[0]}?" if close else f"the names are like {', '.join(names[:3])}",
            )
    places = np.asarray([names.index(folder) for folder in images.classes], dtype=np.int64)
    return replace(images, labels=places[images.labels], classes=names)

"""Pack: small models and the stopwatch in one file that Python runs on another machine."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from pfpcli.latency import stopwatch
from pfpcli.latency.operators import Operator
from pfpcli.latency.small_models import models_of


def write_pack(file: IO[bytes], operators: Sequence[Operator], network: Path, shape: Sequence[int]) -> int:
    """Write a file that `python3 FILE table.json` runs: it times the operators and the network, and writes a table.

    The other machine needs numpy and onnxruntime.

    Args:
        file: the file to write, a zip archive with a program.
        operators: what to time.
        network: ONNX file of the whole network.
        shape: of its input.

    Returns:
        The number of operators.
    """
    different = list({each.key: each for each in operators}.values())
    parts = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.write(stopwatch.__file__, "__main__.py")
        for number, (part, model) in enumerate(models_of(different)):
            name = f"operators/{number}.onnx"
            pack.writestr(name, model)
            parts.append({"file": name, "operators": [different[i].key for i in part]})
        pack.writestr("operators.json", json.dumps({"input": list(shape), "parts": parts}))
        pack.write(network, "network.onnx")
    return len(different)

"""Pack: small models and the stopwatch in one file that Python runs on another machine."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Sequence
from typing import IO

import onnx

from pfpcli.latency import stopwatch
from pfpcli.latency.conversion import FLOAT32, Conversion
from pfpcli.latency.operators import Operator
from pfpcli.latency.small_models import model_of, parts_of


def write_pack(
    file: IO[bytes],
    operators: Sequence[Operator],
    network: onnx.ModelProto,
    shape: Sequence[int],
    conversion: Conversion = FLOAT32,
) -> int:
    """Write a file that `python3 FILE table.json` runs: it times the operators and the network, and writes a table.

    The other machine needs numpy and onnxruntime.

    Args:
        file: the file to write, a zip archive with a program.
        operators: what to time.
        network: the whole network, in the precision in which it is timed.
        shape: of its input.
        conversion: of the operators to that precision.

    Returns:
        The number of operators.
    """
    different = list({each.key: each for each in operators}.values())
    parts = []
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as pack:
        pack.write(stopwatch.__file__, "__main__.py")
        for number, part in enumerate(parts_of(different)):
            name = f"operators/{number}.onnx"
            pack.writestr(name, model_of([different[i] for i in part], conversion).SerializeToString())
            parts.append({"file": name, "operators": [different[i].key for i in part]})
        pack.writestr(
            "operators.json", json.dumps({"input": list(shape), "precision": conversion.precision, "parts": parts})
        )
        pack.writestr("network.onnx", network.SerializeToString())
    return len(different)

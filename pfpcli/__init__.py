"""Prune the channels of a convolutional network and export a smaller one.

    import pfpcli

    run = pfpcli.compress("model.pt", "imgs", keep=0.4)
    print(run.folder, run.record.after.params / run.record.before.params)

Commands that make or read networks have a function of their name, which takes their flags as keyword arguments.
Importing this package is cheap: torch is imported with the first call.
"""

from __future__ import annotations

import os

from pfpcli._version import __version__
from pfpcli.api import (
    Comparison,
    Plan,
    Result,
    Sweep,
    certify,
    compare,
    compare_criteria,
    compress,
    finetune,
    inspect,
    plan,
    score,
    sparsify,
    sweep,
    verify,
)
from pfpcli.errors import PfpError

__all__ = [
    "Comparison",
    "PfpError",
    "Plan",
    "Result",
    "Sweep",
    "__version__",
    "certify",
    "compare",
    "compare_criteria",
    "compress",
    "finetune",
    "inspect",
    "plan",
    "score",
    "sparsify",
    "sweep",
    "verify",
]

# onnxruntime (1.31, for one) reports to its makers and writes files of its own, unless this is set before its import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

"""Allocation: who says how many channels each group keeps. A row here, and a function in `pfpcli.planning.plan`.

Nothing here imports torch.
"""

from __future__ import annotations

ALLOCATIONS = {
    "divergence": "least divergence of the outputs, measured group by group",
    "error": "least error of the layers, measured group by group",
    "uniform": "the same fraction everywhere",
    "pfp": "one error bound for all layers",
}

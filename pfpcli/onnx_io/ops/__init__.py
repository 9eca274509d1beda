"""Every ONNX op pfp reads: what it comes to in torch. A new one is one function in the module of its kind.

pointwise     what is at a place alone
movement      numbers are moved; sizes
resize        images of another size
contraction   convolutions and products
statistics    norms, pooling, reductions
"""

from pfpcli.onnx_io.ops import contraction, movement, pointwise, resize, statistics
from pfpcli.onnx_io.ops.call import KNOWN, NARROWED, RULES, Call, Edit, Known, UnknownValue

__all__ = [
    "KNOWN",
    "NARROWED",
    "RULES",
    "Call",
    "Edit",
    "Known",
    "UnknownValue",
    "contraction",
    "movement",
    "pointwise",
    "resize",
    "statistics",
]

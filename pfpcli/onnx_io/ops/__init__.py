"""The ONNX ops that pfp reads and rewrites.

Given: one node with its computed inputs. Gives back: its outputs in torch, or the node rewritten to the sizes of a cut
network. May import `graph`. A new op is one function with `@register` in the module of its kind, and one function
with `@rewriter` if the node contains sizes, indices or numbers of channels.

    call            one node and its inputs as a rule sees them
    tables          the tables of rules and rewriters
    pointwise       elementwise ops
    shape           sizes, reshaping, filled tensors
    indexing        joining, splitting, slicing, gathering, scattering
    spatial         the height and width of images
    contraction     convolutions and matrix products
    fused           what onnxruntime fuses when it optimises a file
    statistics      norms, pooling, reductions, softmax
"""

from pfpcli.onnx_io.ops import contraction, fused, indexing, pointwise, shape, spatial, statistics
from pfpcli.onnx_io.ops.call import Call, Known, NotRead
from pfpcli.onnx_io.ops.tables import KNOWN, REWRITERS, RULES, NodeEdit

__all__ = [
    "KNOWN",
    "REWRITERS",
    "RULES",
    "Call",
    "Known",
    "NodeEdit",
    "NotRead",
    "contraction",
    "fused",
    "indexing",
    "pointwise",
    "shape",
    "spatial",
    "statistics",
]

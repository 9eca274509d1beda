"""Rules of the ops that onnxruntime makes when it optimises a file: a layer and what follows it in one node."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.onnx_io.ops.call import Call, NotRead
from pfpcli.onnx_io.ops.contraction import conv, gemm, rewrite_groups
from pfpcli.onnx_io.ops.tables import Result, register, rewriter

#: Name of an activation -> its function of a tensor and its parameters.
_ACTIVATIONS: dict[str, Callable[..., Tensor]] = {
    "": lambda x: x,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "LeakyRelu": lambda x, slope=0.01: F.leaky_relu(x, slope),
    "Clip": torch.clamp,
    "HardSigmoid": lambda x, slope=0.2, offset=0.5: (slope * x + offset).clamp(0, 1),
}


def _activated(call: Call, x: Tensor, parameters: list[float]) -> Tensor:
    name = call.attribute("activation", "")
    if name not in _ACTIVATIONS:
        raise NotRead(f"activation={name}")
    return _ACTIVATIONS[name](x, *parameters)


@register("com.microsoft.FusedConv")
def _fused_conv(call: Call) -> Result:
    made = conv(call)
    made = made + call.tensor(3) if call.has(3) else made
    return _activated(call, made, call.attribute("activation_params") or [])


rewriter("com.microsoft.FusedConv")(rewrite_groups)


@register("com.microsoft.FusedGemm")
def _fused_gemm(call: Call) -> Result:
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    return _activated(call, gemm(call), [call.attribute(name) for name in names if name in call.attributes])


@register("com.microsoft.FusedMatMul")
def _fused_matmul(call: Call) -> Result:
    a, b = call.tensor(0), call.tensor(1)
    if call.attribute("transBatchA", 0) or call.attribute("transBatchB", 0):
        raise NotRead("transBatchA, transBatchB")
    a, b = (x.mT if call.attribute(name, 0) else x for x, name in ((a, "transA"), (b, "transB")))
    alpha = call.attribute("alpha", 1.0)
    return torch.matmul(a, b) if alpha == 1 else alpha * torch.matmul(a, b)


@register("com.microsoft.Gelu", "com.microsoft.BiasGelu")
def _gelu(call: Call) -> Result:
    x = call.tensor(0)
    return F.gelu(x + call.tensor(1) if call.has(1) else x)


@register("com.microsoft.FastGelu")
def _fast_gelu(call: Call) -> Result:
    x = call.tensor(0)
    return F.gelu(x + call.tensor(1) if call.has(1) else x, approximate="tanh")


@register("com.microsoft.QuickGelu")
def _quick_gelu(call: Call) -> Result:
    x = call.tensor(0)
    return x * torch.sigmoid(call.attribute("alpha", 1.702) * x)

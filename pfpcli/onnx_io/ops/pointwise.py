"""Rules of elementwise ops."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from functools import reduce
from typing import Any

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor

from pfpcli.onnx_io.ops.call import TYPES, Call, Known, NotRead
from pfpcli.onnx_io.ops.tables import Result, register

UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "Abs": torch.abs, "Acos": torch.acos, "Acosh": torch.acosh, "Asin": torch.asin, "Asinh": torch.asinh,
    "Atan": torch.atan, "Atanh": torch.atanh, "Ceil": torch.ceil, "Cos": torch.cos, "Cosh": torch.cosh,
    "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor, "HardSwish": F.hardswish,
    "IsNaN": torch.isnan, "Log": torch.log, "Mish": F.mish, "Neg": torch.neg, "Not": torch.logical_not,
    "Reciprocal": torch.reciprocal, "Relu": F.relu, "Round": torch.round, "Sigmoid": torch.sigmoid, "Sign": torch.sign,
    "Sin": torch.sin, "Sinh": torch.sinh, "Softplus": F.softplus, "Softsign": F.softsign, "Sqrt": torch.sqrt,
    "Tan": torch.tan, "Tanh": torch.tanh, "BitwiseNot": torch.bitwise_not,
}  # fmt: skip

BINARY: dict[str, Callable[[Any, Any], Tensor]] = {
    "Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Equal": torch.eq, "Greater": torch.gt, "Less": torch.lt,
    "GreaterOrEqual": torch.ge, "LessOrEqual": torch.le, "BitwiseAnd": torch.bitwise_and, "BitwiseOr": torch.bitwise_or,
    "BitwiseXor": torch.bitwise_xor,
}  # fmt: skip

#: Their torch functions take tensors only, no numbers.
LOGICAL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
}  # fmt: skip

#: For numbers that may stand for free sizes.
NUMBERS: dict[str, Callable[..., Any]] = {
    "Add": operator.add, "Sub": operator.sub, "Mul": operator.mul, "Equal": operator.eq, "Greater": operator.gt,
    "Less": operator.lt, "GreaterOrEqual": operator.ge, "LessOrEqual": operator.le, "Neg": operator.neg, "Abs": abs,
    "And": operator.and_, "Or": operator.or_, "Identity": lambda x: x, "Pow": operator.pow, "Sqrt": lambda x: x**0.5,
}  # fmt: skip


def _unary(compute: Callable[[Tensor], Tensor]) -> Callable[[Call], Result]:
    return lambda call: compute(call.tensor(0))


def _binary(compute: Callable[[Any, Any], Tensor]) -> Callable[[Call], Result]:
    # torch takes no number as first operand; the swapped function takes it as the second
    swapped = _SWAPPED.get(compute)

    def rule(call: Call) -> Result:
        a, b = call.operand(0), call.operand(1)
        if isinstance(a, Tensor):
            return compute(a, b)
        return swapped(b, a) if swapped is not None and isinstance(b, Tensor) else compute(call.tensor(0), b)

    return rule


def _logical(compute: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Call], Result]:
    return lambda call: compute(call.tensor(0), call.tensor(1))


#: A function of (a, b) -> the same function of (b, a).
_SWAPPED: dict[Any, Callable[[Tensor, Any], Tensor]] = {
    torch.add: torch.add, torch.mul: torch.mul, torch.sub: torch.rsub, torch.eq: torch.eq
}  # fmt: skip

for _name, _compute in UNARY.items():
    register(_name)(_unary(_compute))
for _name, _pair in BINARY.items():
    register(_name)(_binary(_pair))
for _name, _both in LOGICAL.items():
    register(_name)(_logical(_both))


def _elementwise(compute: Callable[..., Any]) -> Callable[[Call], Result]:
    def rule(call: Call) -> Result:
        values = [call.known(i) for i in range(len(call.inputs))]
        found = np.frompyfunc(compute, len(values), 1)(*(each.value.astype(object) for each in values))
        kind = torch.bool if compute in _COMPARISONS else values[0].dtype
        return Known.of(found, kind)

    return rule


_COMPARISONS = (operator.eq, operator.gt, operator.lt, operator.ge, operator.le)
for _name, _numbers in NUMBERS.items():
    register(_name, known=True)(_elementwise(_numbers))


@register("Pow")
def _pow(call: Call) -> Result:
    x = call.tensor(0)
    return torch.pow(x, call.operand(1)).to(x.dtype)


@register("Div")
def _div(call: Call) -> Result:
    a, b = call.tensor(0), call.operand(1)
    whole = not a.is_floating_point()
    return torch.div(a, b, rounding_mode="trunc") if whole else torch.div(a, b)


@register("Div", known=True)
def _div_known(call: Call) -> Result:
    a, b = call.known(0), call.known(1)
    # ONNX rounds towards 0; sizes are not negative, so rounding down gives the same
    compute = operator.truediv if a.dtype.is_floating_point else operator.floordiv
    return Known.of(np.frompyfunc(compute, 2, 1)(a.value.astype(object), b.value.astype(object)), a.dtype)


@register("Mod")
def _mod(call: Call) -> Result:
    return (torch.fmod if call.attribute("fmod", 0) else torch.remainder)(call.tensor(0), call.operand(1))


@register("Mod", known=True)
def _mod_known(call: Call) -> Result:
    a, b = call.known(0), call.known(1)
    return Known.of(np.frompyfunc(operator.mod, 2, 1)(a.value.astype(object), b.value.astype(object)), a.dtype)


@register("Floor", "Ceil", known=True)
def _rounded(call: Call) -> Result:
    x, name = call.known(0), call.op.lower()

    def rounded(number: Any) -> Any:
        return getattr(math if isinstance(number, torch.SymFloat) else np, name)(number)

    return Known.of(np.frompyfunc(rounded, 1, 1)(x.value), x.dtype)


@register("Cast", "CastLike")
def _cast(call: Call) -> Result:
    # CastLike reads only the type of its second input, which need not be known
    return _cast_known(call) if isinstance(call.inputs[0], Known) else call.tensor(0).to(_kind(call))


@register("Cast", "CastLike", known=True)
def _cast_known(call: Call) -> Result:
    x, kind = call.known(0), _kind(call)

    def cast(number: Any) -> Any:
        if isinstance(number, (torch.SymInt, torch.SymFloat)):
            if kind.is_floating_point:
                return torch.sym_float(number)
            return number.__trunc__() if isinstance(number, torch.SymFloat) else number
        return float(number) if kind.is_floating_point else bool(number) if kind is torch.bool else int(number)

    return Known.of(np.frompyfunc(cast, 1, 1)(x.value), kind)


def _kind(call: Call) -> torch.dtype:
    if call.op == "CastLike":
        like = call.inputs[1]
        assert like is not None
        return like.dtype
    number = call.attribute("to")
    if number not in TYPES:
        raise NotRead(f"numbers of type {onnx.TensorProto.DataType.Name(number)}")
    return TYPES[number]


@register("Min", "Max", "Sum", "Mean")
def _variadic(call: Call) -> Result:
    compute = {"Min": torch.minimum, "Max": torch.maximum}.get(call.op, torch.add)
    found = reduce(compute, call.tensors())
    return found / len(call.inputs) if call.op == "Mean" else found


@register("Min", "Max", known=True)
def _extreme_known(call: Call) -> Result:
    values = [call.known(i) for i in range(len(call.inputs))]
    extreme = np.frompyfunc(torch.sym_min if call.op == "Min" else torch.sym_max, 2, 1)
    return Known.of(reduce(extreme, (each.value.astype(object) for each in values)), values[0].dtype)


@register("Where")
def _where(call: Call) -> Result:
    return torch.where(call.tensor(0), call.operand(1), call.operand(2))


@register("Where", known=True)
def _where_known(call: Call) -> Result:
    condition, a, b = (call.known(i) for i in range(3))
    return Known.of(np.where(condition.value.astype(bool), a.value, b.value), a.dtype)


@register("Clip")
def _clip(call: Call) -> Result:
    low, high = (_limit(call, index, name) for index, name in ((1, "min"), (2, "max")))
    x = call.tensor(0)
    if low is None and high is None:
        return x
    if low is None or high is None or low >= high:
        return F.relu(x) if (low, high) == (0, None) else torch.clamp(x, low, high)
    return F.hardtanh(x, low, high)


def _limit(call: Call, index: int, name: str) -> float | None:
    found = call.numbers(index, name) if call.has(index) else call.attribute(name)
    limit = found[0] if isinstance(found, list) else found
    # before opset 11 the default limits are the smallest and the largest float
    return None if limit is None or abs(limit) >= torch.finfo(torch.float32).max else limit


@register("LeakyRelu")
def _leaky(call: Call) -> Result:
    return F.leaky_relu(call.tensor(0), call.attribute("alpha", 0.01))


@register("PRelu")
def _prelu(call: Call) -> Result:
    x, slope = call.tensor(0), call.tensor(1)
    by_channel = [x.shape[1], *[1] * (x.dim() - 2)] if x.dim() > 1 else []
    # before opset 7 a slope had shape [C] and was not broadcast from the right
    is_legacy = slope.dim() == 1 and x.dim() > 2 and slope.shape[0] == x.shape[1] != x.shape[-1]
    if slope.numel() == 1 or list(slope.shape) == by_channel or is_legacy:
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x >= 0, x, slope * x)


@register("Elu", "Celu", "Selu", "ThresholdedRelu", "Shrink")
def _activation(call: Call) -> Result:
    x = call.tensor(0)
    if call.op == "Elu":
        return F.elu(x, call.attribute("alpha", 1.0))
    if call.op == "Celu":
        return F.celu(x, call.attribute("alpha", 1.0))
    if call.op == "ThresholdedRelu":
        return F.threshold(x, call.attribute("alpha", 1.0), 0.0)
    if call.op == "Shrink":
        bias, width = call.attribute("bias", 0.0), call.attribute("lambd", 0.5)
        return torch.where(x < -width, x + bias, torch.where(x > width, x - bias, torch.zeros_like(x)))
    alpha, gamma = call.attribute("alpha", 1.6732632423543772), call.attribute("gamma", 1.0507009873554805)
    return torch.mul(F.elu(x, alpha), gamma)


@register("HardSigmoid")
def _hard_sigmoid(call: Call) -> Result:
    x, alpha, beta = call.tensor(0), call.attribute("alpha", 0.2), call.attribute("beta", 0.5)
    if abs(alpha - 1 / 6) < 1e-6 and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(alpha * x + beta, 0, 1)


@register("Gelu")
def _gelu(call: Call) -> Result:
    return F.gelu(call.tensor(0), approximate=call.attribute("approximate", "none"))


@register("Swish")
def _swish(call: Call) -> Result:
    x, alpha = call.tensor(0), call.attribute("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(alpha * x)


@register("IsInf")
def _is_inf(call: Call) -> Result:
    x = call.tensor(0)
    negative, positive = call.attribute("detect_negative", 1), call.attribute("detect_positive", 1)
    return (torch.isneginf(x) & bool(negative)) | (torch.isposinf(x) & bool(positive))


@register("Identity", "Dropout")
def _identity(call: Call) -> Result:
    x = call.inputs[0]
    return (x, torch.ones_like(call.tensor(0), dtype=torch.bool)) if call.outputs > 1 else x

"""Refit layers: the calls of a cut network that a refit can change, and the tensors that take their intercepts."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.channels.layers import Layer
from pfpcli.channels.rules.statistics import NORMS
from pfpcli.graph.calls import bind
from pfpcli.graph.graph import is_tensor
from pfpcli.recovery.paired_run import PairedRun

#: Products that are a layer if their second operand is one matrix.
_PRODUCTS = ("aten.matmul.default", "aten.bmm.default", "aten.addmm.default", "aten.baddbmm.default")


def is_layer(node: Node) -> bool:
    """Whether a call has weights of its own."""
    return _operands(node) is not None


def layer_of(node: Node) -> Layer | None:
    """The layer of a call; None if the call has no weights of its own."""
    operands, rule = _operands(node), rules.find(node.target)
    if operands is None or rule is None or rule.columns is None:
        return None
    x, weight = operands
    shown = (torch.empty(each.shape, device="meta") for each in (x.meta["val"][:1], weight.meta["val"]))
    return Layer(node, x, weight, *rule.columns(node, *shown).x.shape[3:])


def _operands(node: Node) -> tuple[Node, Node] | None:
    """What a layer reads, and its weight; None for a call that is no layer."""
    rule = rules.find(node.target) if node.op == "call_function" else None
    if rule is None or rule.columns is None:
        return None
    x, weight = (_operand(node, i) for i in rule.operands[:2])
    if x is None or weight is None or weight.op != "get_attr" or not is_tensor(x):
        return None
    # a single vector has no rows, and a stack of weights is no layer
    if x.meta["val"].dim() < 2 or (str(node.target) in _PRODUCTS and weight.meta["val"].dim() != 2):
        return None
    return x, weight


def fixed_bias(layer: Layer, pair: PairedRun) -> Tensor:
    """The bias of a layer, in a shape that broadcasts to the layer's result; float[] zero without a bias."""
    bias = _bias(layer)
    if bias is None:
        return torch.zeros(())
    sizes = [1] * layer.node.meta["val"].dim()
    sizes[rules.output_dim(layer.node)] = -1
    return pair.tensor(bias).detach().view(sizes)


@dataclass(frozen=True)
class Intercept:
    """The tensor that takes the intercept of a layer: its bias, or the running mean of the batch norm after it.

    Attributes:
        tensor: float[C_out].
        mean: the running mean before the refit, from which the intercept is subtracted; None for a bias.
    """

    tensor: Tensor
    mean: Tensor | None

    @classmethod
    def of(cls, layer: Layer, pair: PairedRun) -> Intercept | None:
        """The place of the intercept.

        None if there is no place, if layers that share the weights have different places, or if other calls use the
        tensor as well.
        """
        calls = [layer_of(call) for call in pair.users(layer.weight)]
        found = [_place(call) if call is not None else None for call in calls]
        places, readers = [each[0] for each in found if each], [each[1] for each in found if each]
        if len(places) < len(calls) or len({id(pair.tensor(place)) for place in places}) > 1:
            return None
        if not pair.users(places[0]) <= set(readers):
            return None
        tensor = pair.tensor(places[0])
        return cls(tensor, tensor.detach().clone() if str(readers[0].target) in NORMS else None)

    def set(self, value: Tensor) -> None:
        """Set the intercept: float[C_out], which is added to the product of the weights."""
        self.tensor.copy_(value if self.mean is None else self.mean - value)


def _place(layer: Layer) -> tuple[Node, Node] | None:
    """The tensor that can take a layer's intercept, one number for each output channel, and the call that reads it."""
    place, reader = _bias(layer), layer.node
    if place is None:
        norms = list(layer.node.users)
        if len(norms) != 1 or str(norms[0].target) not in NORMS:
            return None
        place, reader = bind(norms[0])["running_mean"], norms[0]
    size = layer.node.meta["val"].shape[rules.output_dim(layer.node)]
    fits = place is not None and place.op == "get_attr" and place.meta["val"].shape == (size,)
    return (place, reader) if fits else None


def _bias(layer: Layer) -> Node | None:
    """The bias of a layer, if it has one."""
    rule = rules.find(layer.node.target)
    assert rule is not None
    return _operand(layer.node, rule.operands[2]) if len(rule.operands) > 2 else None


def _operand(node: Node, index: int) -> Node | None:
    """An argument of a call by its index in the op's schema; None if it is not a node."""
    names = [argument.name for argument in node.target._schema.arguments]  # type: ignore[union-attr]
    found = bind(node).get(names[index])
    return found if isinstance(found, Node) else None

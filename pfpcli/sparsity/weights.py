"""Weights: the tensors whose weights can become zero, and how many weights a budget keeps.

These are the weights of every layer that reads channels. All other parameters (biases, norms, depthwise convolutions,
frozen layers) stay as they are and count in the budget. So does a tensor that another op reads too, such as an
embedding whose weights are also those of the last layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.fx.node import Node, map_arg

from pfpcli.channels import rules
from pfpcli.channels.freezing import matching, split_side
from pfpcli.channels.groups import Groups
from pfpcli.channels.reading_layers import Reader
from pfpcli.errors import BudgetError, UnsupportedError
from pfpcli.graph.graph import Graph, is_constant, is_tensor, owner


@dataclass(frozen=True, eq=False)
class Weights:
    """A tensor of weights and the layers that read with it.

    Attributes:
        node: its node in the graph.
        tensor: float[...], the original weights.
        readers: the layers; a layer may read with a view of the tensor.
    """

    node: Node
    tensor: Tensor
    readers: tuple[Reader, ...]

    @property
    def name(self) -> str:
        """Dotted name of the layer that owns the tensor."""
        return owner(self.node)

    @property
    def target(self) -> str:
        """Dotted name of the tensor."""
        return str(self.node.target)

    @property
    def used(self) -> Tensor:
        """The weights that some layer reads with: bool, in the shape of the tensor."""
        return torch.stack([self.back(r, self.there(r, torch.ones_like(self.tensor))) for r in self.readers]).any(0)

    def there(self, reader: Reader, values: Tensor) -> Tensor:
        """Return weights as the matrix of a layer, float[G, O, J, R]; values: in the shape of the tensor."""
        return reader.matrix(view_of(reader.weight, values))

    def spread(self, reader: Reader, values: Tensor) -> Tensor:
        """Return numbers that belong to weights (scores, factors) at the places of a layer's matrix."""
        return self.there(reader, values) / self.there(reader, torch.ones_like(values))

    def back(self, reader: Reader, values: Tensor) -> Tensor:
        """Return numbers at the places of a layer's matrix in the tensor's shape; 0 where the layer reads nothing."""
        at = self.tensor.to(values.device)
        return rules.into_weight(values, lambda w: self.there(reader, w), at).nan_to_num(0)


def view_of(node: Node, base: Tensor) -> Tensor:
    """Return the view that a constant node takes of its parameter, taken of another tensor of the same shape."""
    if node.op == "get_attr":
        return base
    args, kwargs = map_arg((node.args, node.kwargs), lambda n: view_of(n, base))
    viewed: Tensor = node.target(*args, **kwargs)  # type: ignore[operator]
    return viewed


def parameter(node: Node) -> Node:
    """Return the node of the parameter that a constant node is a view of; a view has one source."""
    while node.op != "get_attr":
        node = node.all_input_nodes[0]
    return node


def weights_of(groups: Groups, readers: Sequence[Reader], freeze: Sequence[str]) -> list[Weights]:
    """Return the tensors whose weights can become zero, in the order in which layers read with them.

    Args:
        groups: the groups of the network.
        readers: the layers that read channels.
        freeze: as in `freezing.freeze_layers`; the tensors of layers that match are left out, and those of layers of
            which one side is named lose no channel, but single weights.

    Raises:
        UnsupportedError: there are no such tensors.
    """
    graph = groups.labelled.graph
    whole = [name for name, side in map(split_side, freeze) if not side]
    frozen = {name for pattern in whole for name in matching(groups.labelled, pattern)}
    layers = {reader.node for reader in readers if reader.has_weights}
    alone = {
        id(graph.tensor(node))
        for node in graph.nodes
        if node.op == "get_attr" and is_tensor(node) and (owner(node) in frozen or not _only_read(node, layers))
    }
    found: dict[int, tuple[Node, list[Reader]]] = {}
    for reader in readers:
        if reader.has_weights:
            node = parameter(reader.weight)
            tensor = graph.tensor(node)
            if isinstance(tensor, nn.Parameter) and id(tensor) not in alone:
                found.setdefault(id(tensor), (node, []))[1].append(reader)
    if not found:
        raise UnsupportedError(
            f"nothing can be sparsified: no layer with weights {'is left' if freeze else 'reads channels'}",
            "name fewer layers with --freeze" if freeze else "see `pfp inspect MODEL`",
        )
    return [Weights(node, graph.tensor(node).detach(), tuple(group)) for node, group in found.values()]


def _only_read(node: Node, layers: set[Node]) -> bool:
    """Whether only these layers read a tensor or its views; weights that other ops read have no score."""
    return all(user in layers or (is_constant(user) and _only_read(user, layers)) for user in node.users)


@dataclass(frozen=True)
class Amount:
    """How many parameters a network has, and how many of them a budget keeps.

    Attributes:
        total: all parameters.
        present: parameters that are not zero.
        fixed: parameters that are not zero and always stay.
        wanted: parameters that are nonzero after the weights are chosen.
    """

    total: int
    present: int
    fixed: int
    wanted: int

    @property
    def budget(self) -> int:
        """The number of weights that stay."""
        return self.wanted - self.fixed


def amount_of(graph: Graph, found: Sequence[Weights], keep: float) -> Amount:
    """Return how many parameters a budget keeps.

    Args:
        graph: the network.
        found: the tensors whose weights can become zero.
        keep: the fraction of the parameters that is nonzero in the end.

    Raises:
        BudgetError: more parameters always stay.
    """
    parameters = stored(graph)
    total, present = sum(p.numel() for p in parameters), nonzeros(graph)
    fixed = present - sum(int((each.tensor[each.used] != 0).sum()) for each in found)
    wanted = math.floor(keep * total + 1e-9)
    if wanted <= fixed:
        least = math.ceil(1000 * (fixed + 1) / total) / 1000
        raise BudgetError(
            f"--keep {keep:g}: not reachable; {fixed:,} of the {total:,} parameters always stay "
            "(biases, norms, frozen layers)",
            f"use `--keep {least:.3f}` or more",
        )
    return Amount(total, present, fixed, wanted)


def stored(graph: Graph) -> list[Tensor]:
    """Return the parameters of a network, each once."""
    found = (graph.tensor(n) for n in graph.nodes if n.op == "get_attr" and is_tensor(n))
    return list({id(t): t.detach() for t in found if isinstance(t, nn.Parameter)}.values())


def nonzeros(graph: Graph) -> int:
    """Return how many parameters of a network are not zero."""
    return sum(int((p != 0).sum()) for p in stored(graph))

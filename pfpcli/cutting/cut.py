"""Cut: make a network without its dropped channels. The original graph does not change.

This module knows no op. It slices every tensor along its labels, and the rules (`channels.rules`) change the sizes in
the arguments of the calls.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.fx.node import Node

from pfpcli.channels import rules
from pfpcli.channels.labelled import Labelled
from pfpcli.channels.slicing import Slicing
from pfpcli.graph.graph import Graph, add_tensor, fetch, is_tensor
from pfpcli.graph.propagate import propagate


class Cut(NamedTuple):
    """A cut network and its slicing.

    Attributes:
        slicing: the kept part of every tensor of the original.
        graph: the cut network.
    """

    slicing: Slicing
    graph: Graph


def cut(labelled: Labelled, alive: NDArray[np.bool_]) -> Cut:
    """Remove dropped labels from a graph.

    Args:
        labelled: the original and its labels.
        alive: bool[labels], the kept labels, as in `Slicing`.
    """
    slicing = Slicing(labelled, alive)
    smaller = replace(labelled.graph, module=_module(slicing))
    smaller.check()
    return Cut(slicing, smaller)


def _module(slicing: Slicing) -> fx.GraphModule:
    """The module of the cut network."""
    graph = slicing.labelled.graph
    root = _sliced_tensors(slicing)
    new = fx.Graph(owning_module=root)  # type: ignore[arg-type]  # rules add constants to it
    copies: dict[Node, Node] = {}
    for node in graph.nodes:
        made = copies[node] = new.node_copy(node, lambda n: copies[n])
        rule = rules.find(node.target) if node.op == "call_function" else None
        if rule is not None and rule.resize is not None and node in slicing.labelled.axes:
            rule.resize(slicing, node, made)
    new.eliminate_dead_code()  # index tensors that a rule has replaced
    new.set_codegen(copy.copy(graph.module.graph._codegen))
    module = fx.GraphModule(root, new)
    propagate(module, graph.example)
    return module


def _sliced_tensors(slicing: Slicing) -> nn.Module:
    """The graph's tensors, sliced, under the same names; a tensor with two names stays one tensor."""
    graph, root = slicing.labelled.graph, nn.Module()
    made: dict[int, Tensor] = {}
    seen: set[str] = set()
    for node in graph.nodes:
        if node.op != "get_attr" or str(node.target) in seen:
            continue
        seen.add(str(node.target))
        if not is_tensor(node):  # a submodule of a higher-order op
            root.add_module(str(node.target), fetch(graph.module, str(node.target)))
            continue
        value = graph.tensor(node)
        if id(value) not in made:
            sliced = slicing.slice(node, value.detach()).clone()
            trained = isinstance(value, nn.Parameter)
            made[id(value)] = nn.Parameter(sliced, requires_grad=value.requires_grad) if trained else sliced
        add_tensor(root, str(node.target), made[id(value)])
    return root

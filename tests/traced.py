"""The networks of the zoo as graphs with groups, made once a process: tests share them and leave them as they are."""

from __future__ import annotations

from functools import cache

from pfpcli.channels.groups import Groups, group
from pfpcli.channels.labelling import label
from pfpcli.graph.trace import trace
from zoo_blocks import NETS


@cache
def grouped(name: str) -> Groups:
    """The groups of a network of the zoo; `labelled.graph` is the traced network."""
    net = NETS[name]
    return group(label(trace(net.module(), net.example())))

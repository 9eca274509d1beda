"""The traced network: one module becomes one graph of ATen calls.

Given: a torch module, or a program exported by torch, and example inputs. Gives back: a `Graph`, whose calls write to
no tensor that the graph reads later, and whose nodes all carry the sizes of their values. Imports `errors` only.

    graph               the class Graph, its check, and functions that classify nodes
    trace               from a module or an exported program to a Graph
    run                 a run of a network, call by call
    pending_product     a product of all positions with all positions, computed in pieces
    data_independent    the part of a network that comes before sizes depend on values
    functional          rewrites: regions inlined, assertions dropped, in-place calls replaced
    constants           rewrite: tensors that depend on parameters alone are computed once
    rearrangements      rewrites: channel shuffles, and channels that pass through the batch dimension
    inference           whether the outputs depend on the image alone
    difference          how far outputs are from those that a network should give
    propagate           sets the size of every value in a graph
    calls               arguments of an ATen call by name
    safe_names          names that may stand in the source code that torch generates
    invariant           the error that a failed check raises
    quiet               silences torch's exporters
"""

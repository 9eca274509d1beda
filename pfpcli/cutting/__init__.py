"""Cutting: apply a plan to a network and prove the result.

The package is given a plan, the labelled graph it is for, and the reading layers. It gives back a `Cut`: the slicing of
every tensor and the smaller graph, which equals the masked original within a named tolerance. It also reads and writes
plans as files, and reports bounds and measurements of each layer's error. It imports `planning`, `scoring`,
`activations`, `channels`, `graph` and `records`.

    cut            make the cut network from the labels that are kept
    masked         the original with dropped channels set to zero where layers read them
    verify         check that the cut network equals the masked original
    reweight       multiply weights by the factors of channels that were drawn
    certificate    bounds and measurements of the error of each layer
    plan_file      a plan as plan.json
"""

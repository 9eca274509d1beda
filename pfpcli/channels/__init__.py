"""Channels: which channels of a network may be dropped together, and what a network without them costs.

Given: a `Graph`. Gives back: a label for every index of every tensor (`Labelled`), groups of units that may be dropped
(`Groups`), the layers that read channels (`Reader`), costs (`Costs`), and what a plan leaves of every tensor
(`Slicing`). Imports `graph` and `errors`.

    labels          label vectors of a tensor (Axes), and the store that hands labels out
    moved           where a movement of elements puts labels
    labelled        a graph with its labels (Labelled), the places where channels are read (Contraction)
    slicing         what a plan leaves of every tensor (Slicing)
    flow            the handle that the rule of an op works with
    rules           the rules: one record for each op
    labelling       the walk over a graph that labels it
    heads           parts of a dimension that may be dropped as a whole
    units           labels that are tied, and what the layers say about them
    freezing        the channels that the user names, which no cut may drop
    places          where channels may be cut; imports no torch
    residual_blocks the sums of two branches, and the channels inside of blocks
    balance         rows of units that each lose the same number of units
    groups          groups of units, and why some are frozen
    layers          a layer as a matrix product
    reading_layers  the layers that read channels (Reader)
    cost            parameters, MACs and bytes
"""

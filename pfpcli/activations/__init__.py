"""Activations: what the layers of a network read.

The package is given a network with its groups (`channels`) and batches of images. It runs the images through the
network and returns what its layers read, and statistics of it (Gram matrices, least squares). It may import `channels`,
`graph`, `records` and what is below them; it decides nothing.

task              Task: a network, its images and the layers that read channels
walk              Walk: a run that shows each layer's inputs to a function
value_recorder    ValueRecorder: a run that records the values of some nodes
gated_network     GatedNetwork: the network with one factor for each label, to switch channels off
output_slopes     OutputSlopes: how much the network's decisions change with what its layers make
unit_columns      the columns of a layer, gathered by unit
gram_matrices     Gram: X'X of what a layer reads, and the refit of the layer to fewer channels
kept_halves       KeptHalves: what layers read, kept in a file from one step to the next
stored_tensors    tensors in a file
nested_fits       the least squares fits of a layer to fewer and fewer of its columns
least_squares     least squares by normal equations or by rows
normal_equations  X'X and X'Y of rows that come in batches
ridge             the choice of lambda
row_products      products of many rows
"""

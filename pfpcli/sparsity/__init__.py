"""Sparsity: which single weights of a network become zero.

Sparsity is given the groups of a network, its images and a budget of weights. It returns a factor for each weight, the
bounds and the measured errors of the layers, and the channels that no layer reads any more. It may import `cutting`,
`planning`, `scoring`, `activations`, `channels` and what is below them.

weights          the tensors whose weights can become zero, and how many weights a budget keeps
weight_scores    a score for each weight, by a criterion
choose           the weights that stay
sipp             the sensitivity of a single weight, and the bound on the error of a layer (SiPP)
rows             the rows of a layer: their errors, and the draw of their weights
row_counts       how many weights each row keeps
zeroing          puts the zeros into a network; measured errors and dead channels
"""

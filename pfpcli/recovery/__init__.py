"""Recovery: reduce the error that a cut has caused.

The package is given a cut network with its slicing (`cutting.cut.Cut`), a division of the calibration images, a device
and, for training, limits. It changes the tensors of the cut network in place and returns a `records.parts.Recovered`
with the likeness to the original before and after. It imports `planning`, `cutting`, `activations`, `channels`,
`graph`, `images` and `records`.

    methods            the table of methods; imports no torch
    task               the input of every method
    recover            one method, checked and undone if it made the network worse
    call_by_call       run a visitor on every call of a cut network
    paired_run         the original and the cut network, side by side
    shelf              the values of many batches, in memory and in a file
    refit              methods `mean` and `lsq`: least squares for the biases or the weights of layers
    refit_layers       the layers that a refit can change, and the place of their intercepts
    importance         how much the outputs depend on each position of what a layer makes
    spread             scores that vary as much as the original's
    refit_problem      the least squares problem of one weight
    trial              how good a plan is, by a coarse refit
    epilogue           the element-wise operations after a layer
    batch_norms        method `bn`: running statistics of batch norms
    distill            method `distill`: training against the outputs of the original
    train              gradient descent with a check, a schedule and interruptions
    training_state     the file that holds interrupted training
    trainable          the tensors of a graph as trainable parameters
    loss_on_device     the fastest memory format and precision for a loss
    training_batches   batches of training images, reshuffled in every epoch
    augment            random changes of training images
"""

"""Outputs: what a network says, how far two networks are from each other, and what people read as quality.

The package is given a traced network and its outputs on images. It returns the role of each output, losses and
qualities. It may import `graph`, `images`, `records` and what is below them.

asked      what the user says about the outputs
roles      tell the role of each output
structure  what the last ops in front of an output say about it
evidence   what the values of an output say about it
kinds/     for each kind of role: its losses and its quality. A new kind touches only this package
losses     the losses of all outputs together
heads      outputs that are read together: boxes with the scores of the same places
detections what a detector finds again: boxes, or places
boxes      which boxes are sure, and which of two networks are the same
quality    compare networks on images
known_outputs  what the original puts out, computed once for all that is compared with it
changes    what a network does otherwise, class by class and image by image, collected while it is compared
answers    what a network says about an image, and how far two answers are apart
thumbnails small pictures of images and of outputs
fall       how far the quality falls, with a confidence interval
differences  how far the numbers of two networks are apart
"""

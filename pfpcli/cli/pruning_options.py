"""The groups of options that all commands have which prune a network to a budget: compress, plan and sweep."""

from __future__ import annotations

from pfpcli.cli.options import checkpoint, criterion, images, judging, machine, network, recovery, samples, scoring
from pfpcli.cli.output_options import outputs

#: Groups about the network and the images. They come before those about the budget, in the help as well.
WHAT = (checkpoint, network, outputs, images, judging)
#: Groups about how it is done.
HOW = (criterion, samples, scoring, recovery, machine)

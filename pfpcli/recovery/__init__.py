"""Recovery: how a cut network gets back what it can of what it lost. A method is a row here.

Nothing here imports torch; `pfpcli.jobs.recover_steps` does, when a network is recovered.
"""

from __future__ import annotations

RECOVERIES = {
    "mean": "the mean of what was dropped, into the biases",
    "lsq": "every layer refitted to what it reads now",
    "bn": "running statistics of batch norms taken again",
    "distill": "trained to put out what the original does",
}

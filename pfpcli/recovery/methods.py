"""The recovery methods. To add a method, write its function and add a row here.

This module does not import torch. A row names its function, and `RecoveryMethod.load` imports it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class RecoveryMethod:
    """A way to recover a cut network.

    Attributes:
        name: its name on the command line.
        summary: what it does, in a few words.
        function: `module:function` in this package. The function takes a `pfpcli.recovery.task.RecoveryTask`, changes
            the tensors of the cut network in place and returns the number of images that it used.
        trains: whether it obeys the `TrainingLimits` of the task and can continue interrupted training.
    """

    name: str
    summary: str
    function: str
    trains: bool = False

    def load(self) -> Callable[[Any], int]:
        """Import the function."""
        module, _, function = self.function.partition(":")
        loaded: Callable[[Any], int] = getattr(import_module(f"{__package__}.{module}"), function)
        return loaded


def by_name(rows: Iterable[RecoveryMethod]) -> dict[str, RecoveryMethod]:
    """The rows by their names, in order.

    Raises:
        ValueError: two rows have the same name.
    """
    table: dict[str, RecoveryMethod] = {}
    for row in rows:
        if row.name in table:
            raise ValueError(f"two recovery methods are named {row.name}")
        table[row.name] = row
    return table


RECOVERIES = by_name(
    [
        RecoveryMethod("mean", "add the mean of what dropped channels contributed to the biases", "refit:refit_biases"),
        RecoveryMethod("lsq", "refit the weights of every layer by least squares", "refit:refit_weights"),
        RecoveryMethod("bn", "re-estimate the running statistics of batch norms", "batch_norms:recalibrate"),
        RecoveryMethod("distill", "train the cut network to match the original", "distill:distill_task", trains=True),
    ]
)

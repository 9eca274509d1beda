"""The error that `Graph.check`, `Labelled.check` and `Groups.check` raise."""

from __future__ import annotations


class InvariantError(AssertionError):
    """A value that one step hands to the next one breaks its contract: a defect of pfp, not of the user's network."""

"""Places: where channels may be cut. This module does not import torch."""

from __future__ import annotations

#: Everywhere, or only inside of residual blocks (see `residual_blocks`).
PLACES = EVERYWHERE, INSIDE = ("everywhere", "inside")

"""Kinds of roles. To add a kind, write its class and add a row here.

This module does not import torch. A row names its class, and `RoleKind.load` imports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from pfpcli.registry import register, resolve

if TYPE_CHECKING:
    from pfpcli.outputs.kinds.kind import Kind


@dataclass(frozen=True)
class RoleKind:
    """One kind of role.

    Attributes:
        summary: what such an output is, in a few words.
        made: "module:class" of the `Kind` in this package.
        has_classes: whether such an output has a dimension of classes.
    """

    summary: str
    made: str
    has_classes: bool = False

    def load(self) -> Kind:
        """Return the losses and the quality of the kind."""
        return _loaded(self.made)


@cache
def _loaded(made: str) -> Kind:
    kind: Kind = resolve(__package__, made)()
    return kind


KINDS = register(
    ("logits", RoleKind("scores of classes, before a softmax", "classes:Logits", has_classes=True)),
    ("probabilities", RoleKind("scores of classes, after a softmax", "classes:Probabilities", has_classes=True)),
    ("sigmoid", RoleKind("independent scores or masks from 0 to 1", "scores:Sigmoid")),
    ("image", RoleKind("pictures", "pictures:Image")),
    ("embedding", RoleKind("vectors that are compared by their angle", "vectors:Embedding")),
    ("boxes", RoleKind("four coordinates for each place that has scores", "numbers:Boxes")),
    ("regression", RoleKind("real numbers of any other meaning", "numbers:Regression")),
)

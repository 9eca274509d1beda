"""The document of `pfp verify`: whether networks compute the same."""

from __future__ import annotations

from dataclasses import dataclass, field

from pfpcli.records.document import Document
from pfpcli.records.parts import OutputQuality


@dataclass
class OutputCompared:
    """The numbers of one output of two networks.

    Attributes:
        name: name of the output.
        shape: its shape, without the batch.
        largest, mean: the largest and the mean difference of two numbers.
        allowed: the largest difference that is allowed: atol + rtol · the largest number of the output.
        same: whether the largest difference is allowed.
    """

    name: str
    shape: tuple[int, ...]
    largest: float
    mean: float
    allowed: float
    same: bool


@dataclass
class NetworksCompared:
    """Two networks on the same inputs.

    Attributes:
        first, second: name of the networks; the first one is the reference.
        runtimes: what computed them, "torch" or "onnxruntime".
        outputs: the differences of the outputs.
        answers: how alike the answers are, by the role of each output, as in the quality of a run; `after` is the
            metric of the second network, and the first one is what it calls the original.
        remark: why a difference does not count; "" where it counts.
    """

    first: str
    second: str
    runtimes: tuple[str, str]
    outputs: list[OutputCompared]
    answers: list[OutputQuality]
    remark: str = ""

    @property
    def same(self) -> bool:
        """Whether all outputs are the same, within the tolerances."""
        return all(output.same for output in self.outputs)


@dataclass(kw_only=True)
class Verified(Document):
    """Networks that were compared.

    Attributes:
        same: whether all comparisons that count found the same outputs.
        atol, rtol: the tolerances: a difference may be atol + rtol · the largest number of the output.
        inputs: which inputs these were, e.g. "16 random inputs of 3×32×32, seed 0".
        n: number of inputs.
        pairs: the comparisons.
        skipped: name of a file -> why it was not compared.
        schema_version: version of the fields. 1: the first one.
    """

    same: bool
    atol: float
    rtol: float
    inputs: str
    n: int
    pairs: list[NetworksCompared]
    skipped: dict[str, str] = field(default_factory=dict)
    schema_version: int = 1

"""Which tests a worker runs in one go: those that share something that takes long to make."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling

from zoo_blocks import NETS


def shared(test: str) -> str:
    """What a test shares with others: a network of the zoo, a row of op rules, or what its file makes once."""
    path, _, rest = test.partition("::")
    params = rest.partition("[")[2].removesuffix("]")
    if params and path.endswith("channels/test_rules.py"):
        return params
    return next((part for part in params.split("-") if part in NETS), path)


class Together(LoadScopeScheduling):
    """Gives a worker all tests that share something, in the order in which pytest has collected them."""

    def _split_scope(self, nodeid: str) -> str:
        return shared(nodeid)

"""Commands: flags in, settings out; results to stdout, talk to stderr. One module for each.

Nothing here imports torch before a command needs it.
"""

from pfpcli.commands import compress, inspect, report, sparsify  # in the order of `pfp --help`
from pfpcli.commands.app import EXAMPLES, app
from pfpcli.commands.talk import output

__all__ = ["EXAMPLES", "app", "compress", "inspect", "output", "report", "sparsify"]

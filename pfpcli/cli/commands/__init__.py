"""The commands, one module each: a command turns flags into settings, runs its job and prints the result.

Results go to stdout, progress and warnings to stderr. Nothing here imports torch before a command needs it.
"""

from importlib import import_module

from pfpcli.cli.app import EXAMPLES, app
from pfpcli.cli.session import output

__all__ = ["EXAMPLES", "app", "output"]

# in the order of `pfp --help`: a command joins the program when its module is imported
for _name in ("compress", "report", "inspect", "score", "compare_criteria", "certify", "sparsify", "finetune"):
    import_module(f"pfpcli.cli.commands.{_name}")

"""The errors of pfp and their exit codes.

    PfpError              exit 2, and 1 for CheckFailed
    ├─ InputError         a file, flag or folder that cannot be used
    │  └─ CalibrationError   the calibration folder is empty, broken or does not fit the model
    ├─ TraceError         the forward pass could not be traced
    ├─ UnsupportedError   nothing in the model can be pruned
    ├─ BudgetError        the budget cannot be reached
    └─ CheckFailed        the work was done, but a check on the result failed

A message starts with the object it is about and says what was found and what was expected. A hint says what to type
instead. `cli.main` is the only place that turns an error into text and an exit code.
"""

from __future__ import annotations


class PfpError(Exception):
    """An error with a reason and a next step.

    Args:
        message: one sentence without a period; starts with the file, layer or flag it is about.
        hint: what to do instead, in the imperative, with text that can be pasted.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        # a name from a file may hold line breaks, and the lines after them would look like pfp's own
        self.message = " ".join(message.splitlines())
        self.hint = " ".join(hint.splitlines())


class InputError(PfpError):
    """A file, flag or folder that cannot be used."""


class CalibrationError(InputError):
    """The calibration images are missing, broken or do not fit the model."""


class TraceError(PfpError):
    """The forward pass could not be traced."""


class UnsupportedError(PfpError):
    """Nothing in the model can be pruned."""


class BudgetError(PfpError):
    """The budget cannot be reached with the channels that may be pruned."""


class CheckFailed(PfpError):
    """The work was done, but a check on the result failed."""

    exit_code = 1


#: Exit codes of a program that a signal has ended: 128 + SIGINT, 128 + SIGPIPE.
INTERRUPTED, NOBODY_READS = 130, 141


class Dismissed(BaseException):
    """This process has done its share of a run, and the first process finishes the run. This is no error."""


class Interrupted(BaseException):
    """The user or the system asks pfp to end. It is no `Exception`, so that `except Exception` does not catch it.

    Args:
        exit_code: of the program.
        hint: how to go on.
    """

    def __init__(self, exit_code: int, hint: str = "") -> None:
        super().__init__()
        self.exit_code = exit_code
        self.hint = hint

"""Every way pfp says no, and the exit code that goes with it.

    PfpError              exit 2 unless said otherwise
    ├─ InputError         a file, flag or folder that cannot be used
    │  └─ CalibrationError   the calibration folder is empty, broken or does not fit the model
    ├─ TraceError         the forward pass could not be followed
    ├─ UnsupportedError   nothing in the model can be pruned
    ├─ BudgetError        the budget cannot be reached
    └─ CheckFailed        exit 1: it was done, but a check did not hold

A message starts with the object it is about and says what was found and what was expected; the hint says what to
type instead. The command line turns them into text and an exit code in one place (`cli.main`).
"""

from __future__ import annotations


class PfpError(Exception):
    """A refusal with a reason and a next step.

    Args:
        message: one sentence without a period; starts with the file, layer or flag it is about.
        hint: what to do instead, in the imperative, with something that can be pasted.
    """

    exit_code = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InputError(PfpError):
    """A file, flag or folder that cannot be used."""


class CalibrationError(InputError):
    """The calibration images are missing, broken or do not fit the model."""


class TraceError(PfpError):
    """The forward pass could not be followed."""


class UnsupportedError(PfpError):
    """Nothing in the model can be pruned."""


class BudgetError(PfpError):
    """The budget cannot be reached with what may be pruned."""


class CheckFailed(PfpError):
    """The work was done, but a check on the result did not hold."""

    exit_code = 1


#: Exit codes of programs that a signal ended: 128 + SIGINT, 128 + SIGPIPE.
INTERRUPTED, NOBODY_READS = 130, 141


class Dismissed(BaseException):
    """This process has done its share of a run, which another one finishes; nothing is wrong."""


class Interrupted(BaseException):
    """The user, or the system, wants pfp to end; no `except Exception` on the way gets hold of it."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code

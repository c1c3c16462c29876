"""Exit codes: what a script can tell from a command that ended, and which error leads to which."""

from __future__ import annotations

from enum import IntEnum
from typing import Final, cast

from aiki_sdk import (
    AikiError,
    InvalidRequest,
    NotFound,
    ResultTimeout,
    StorageError,
    Unavailable,
    UnknownWorkflow,
)


class ExitCode(IntEnum):
    """How a command ended; the numbers are stable."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    NOT_FOUND = 3
    UNAVAILABLE = 4
    NEEDS_VERSION = 5
    TIMED_OUT = 6
    INTERRUPTED = 130


MEANINGS: Final[dict[ExitCode, str]] = {
    ExitCode.OK: "done",
    ExitCode.REFUSED: (
        "refused or failed: the run's status does not allow it, the awaited run failed or was "
        "cancelled, a journal would diverge, or `doctor` found a fault"
    ),
    ExitCode.USAGE: "the command line, a setting, the input or the module is not valid",
    ExitCode.NOT_FOUND: "no such run, workflow, file or database",
    ExitCode.UNAVAILABLE: (
        "the database is in use by a runtime that takes no commands, or cannot be read or written"
    ),
    ExitCode.NEEDS_VERSION: (
        "`replay`: no journal diverges, but a live run needs a version that the module lacks"
    ),
    ExitCode.TIMED_OUT: "the awaited run has not ended in time; it goes on",
    ExitCode.INTERRUPTED: "interrupted from the keyboard",
}

# The first that fits counts, so that what is special stands before its family.
_BY_ERROR: Final[tuple[tuple[type[AikiError], ExitCode], ...]] = (
    (UnknownWorkflow, ExitCode.NOT_FOUND),
    (NotFound, ExitCode.NOT_FOUND),
    (InvalidRequest, ExitCode.USAGE),
    (ResultTimeout, ExitCode.TIMED_OUT),
    (StorageError, ExitCode.UNAVAILABLE),
    (Unavailable, ExitCode.UNAVAILABLE),
)


def exit_code_of(error: AikiError) -> ExitCode:
    """Return the code that a command ends with after this error."""
    for cls, code in _BY_ERROR:
        if isinstance(error, cls):
            return code
    return ExitCode.REFUSED


def only_error(error: BaseException) -> BaseException:
    """Return the one error inside of nested groups of one; else the error itself."""
    while isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        if len(group.exceptions) != 1:
            return group
        error = group.exceptions[0]
    return error

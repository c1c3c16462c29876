"""The errors of this project: one family, one table of codes.

::

    AikiError
    ├─ InvalidRequest              invalid-request       what was asked for is malformed
    │  ├─ DuplicateName            duplicate-name        two definitions under one name
    │  ├─ LimitExceeded            limit-exceeded        a documented limit was met
    │  ├─ NotInTask                not-in-task           current_task() outside a task
    │  ├─ NotInWorkflow            not-in-workflow       a durable operation outside a workflow
    │  ├─ PayloadError             payload               a value that cannot travel
    │  │  └─ PayloadTooLarge       payload-too-large
    │  ├─ UnknownEvent             unknown-event
    │  ├─ UnknownQuestion          unknown-question
    │  └─ UnknownWorkflow          unknown-workflow
    ├─ NotFound                    not-found
    ├─ ReferenceConflict           reference-conflict
    ├─ IllegalTransition           illegal-transition
    │  └─ RunEnded                 run-ended
    ├─ StaleClaim                  stale-claim
    ├─ Unauthorized                unauthorized
    ├─ Unavailable                 unavailable           try again
    ├─ AskRejected                 ask-rejected          the workflow refused to answer
    ├─ ResultTimeout               result-timeout        the client stopped waiting; the run goes on
    ├─ RunOutcome                                        how a run ended, raised to who awaits it
    │  ├─ RunFailed                run-failed
    │  ├─ RunCancelled             run-cancelled
    │  ├─ RunTerminated            run-terminated
    │  └─ RunStalled               run-stalled
    ├─ WorkError                                         raised inside workflow and task code
    │  ├─ TaskFailed               task-failed
    │  ├─ ChildFailed              child-failed
    │  ├─ WaitTimeout              wait-timeout
    │  ├─ RunTimeout               run-timeout
    │  ├─ TaskTimeout              task-timeout
    │  ├─ HeartbeatTimeout         heartbeat-timeout
    │  ├─ TaskProcessDied          task-process-died     its worker process crashed or was killed
    │  ├─ OutcomeUnknown           outcome-unknown       an at-most-once task was lost half-way
    │  ├─ NonRetryable             non-retryable         raise it to end retries
    │  └─ RetryAfter               retry-after           raise it to choose the next delay
    ├─ Divergence                  divergence
    ├─ JournalVersionError         journal-version
    ├─ RecordedTypeMismatch        recorded-type-mismatch
    └─ StorageError                storage
       ├─ StorageCorrupt           storage-corrupt
       ├─ StorageFull              storage-full
       ├─ StorageLocked            storage-locked
       ├─ StorageReadOnly          storage-read-only
       ├─ StorageTooNew            storage-too-new
       ├─ StorageUnavailable       storage-unavailable   it cannot be reached, or written to now
       └─ UnknownOutcome           unknown-outcome       the write may or may not have happened

`code` is stable and travels; `retryable` says whether the same thing, done again unchanged, may
succeed; `message` says what happened, to what, and what to do, and never holds payloads or secrets;
`details` is the same in a form that programs read. An error that came over the wire is rebuilt from
these with `error_from_wire`, so every structured attribute is read from `details`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final

from aiki_sdk._error import AikiError
from aiki_sdk._error_info import ErrorInfo
from aiki_sdk._request_errors import (
    AskRejected,
    DuplicateName,
    IllegalTransition,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    NotInTask,
    NotInWorkflow,
    PayloadError,
    PayloadTooLarge,
    ReferenceConflict,
    ResultTimeout,
    RunEnded,
    StaleClaim,
    Unauthorized,
    Unavailable,
    UnknownEvent,
    UnknownQuestion,
    UnknownWorkflow,
)
from aiki_sdk._storage_errors import (
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageLocked,
    StorageReadOnly,
    StorageTooNew,
    StorageUnavailable,
    UnknownOutcome,
)
from aiki_sdk._work_errors import (
    ChildFailed,
    Divergence,
    HeartbeatTimeout,
    JournalVersionError,
    NonRetryable,
    OutcomeUnknown,
    RecordedTypeMismatch,
    RetryAfter,
    RunCancelled,
    RunFailed,
    RunOutcome,
    RunStalled,
    RunTerminated,
    RunTimeout,
    TaskFailed,
    TaskProcessDied,
    TaskTimeout,
    WaitTimeout,
    WorkError,
)

__all__ = [
    "ERRORS_BY_CODE",
    "AikiError",
    "AskRejected",
    "ChildFailed",
    "Divergence",
    "DuplicateName",
    "ErrorInfo",
    "HeartbeatTimeout",
    "IllegalTransition",
    "InvalidRequest",
    "JournalVersionError",
    "LimitExceeded",
    "NonRetryable",
    "NotFound",
    "NotInTask",
    "NotInWorkflow",
    "OutcomeUnknown",
    "PayloadError",
    "PayloadTooLarge",
    "RecordedTypeMismatch",
    "ReferenceConflict",
    "ResultTimeout",
    "RetryAfter",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunOutcome",
    "RunStalled",
    "RunTerminated",
    "RunTimeout",
    "StaleClaim",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "StorageLocked",
    "StorageReadOnly",
    "StorageTooNew",
    "StorageUnavailable",
    "TaskFailed",
    "TaskProcessDied",
    "TaskTimeout",
    "Unauthorized",
    "Unavailable",
    "UnknownEvent",
    "UnknownOutcome",
    "UnknownQuestion",
    "UnknownWorkflow",
    "WaitTimeout",
    "WorkError",
    "error_from_wire",
]

if TYPE_CHECKING:
    from aiki_sdk._json import JsonValue


def _walk(cls: type[AikiError]) -> Iterator[type[AikiError]]:
    yield cls
    for child in cls.__subclasses__():
        yield from _walk(child)


ERRORS_BY_CODE: Final[Mapping[str, type[AikiError]]] = {
    cls.code: cls for cls in _walk(AikiError) if "code" in cls.__dict__
}
"""Every code and its class. Subclasses that others define later are not part of the wire format."""


def error_from_wire(
    code: str, message: str, details: "Mapping[str, JsonValue] | None" = None
) -> AikiError:
    """Rebuild the error that was sent; a code of a newer release becomes a plain `AikiError`."""
    known = ERRORS_BY_CODE.get(code)
    if known is not None:
        return known.from_wire(message, details)
    return AikiError.from_wire(message, {**(details or {}), "code": code})

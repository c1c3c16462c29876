"""Errors about the work itself: how runs end, what steps end with, journals and storage."""

from aiki_sdk._error import AikiError
from aiki_sdk._error_info import ErrorInfo

# --- How a run ended, raised to whoever awaits it -------------------------------------------------


class RunOutcome(AikiError):
    """Base of the ways in which a run ends without a result."""


class RunFailed(RunOutcome):
    """The run failed; `error` is what it failed with."""

    code = "run-failed"

    def __init__(self, error: ErrorInfo, *, run_id: str = "") -> None:
        """Keep the error that ended the run."""
        super().__init__(
            f"run {run_id} failed: {error}" if run_id else f"run failed: {error}",
            details={"error": error.to_json(), "run_id": run_id},
        )

    @property
    def error(self) -> ErrorInfo:
        """What the run failed with."""
        return self._error_info()


class RunCancelled(RunOutcome):
    """The run was cancelled; `reason` is what was given."""

    code = "run-cancelled"

    def __init__(self, reason: str = "", *, run_id: str = "") -> None:
        """Keep the reason that was given."""
        run = f"run {run_id}" if run_id else "run"
        super().__init__(
            f"{run} was cancelled: {reason or 'no reason given'}",
            details={"reason": reason, "run_id": run_id},
        )

    @property
    def reason(self) -> str:
        """The reason that was given, or an empty string."""
        return self._text("reason")


class RunTerminated(RunCancelled):
    """The run was ended at once, without running any of its code."""

    code = "run-terminated"


class RunStalled(RunOutcome):
    """The run cannot go on by itself; an operator has to requeue or cancel it."""

    code = "run-stalled"

    def __init__(self, reason: str, *, run_id: str = "") -> None:
        """Say why it stalled."""
        run = f"run {run_id}" if run_id else "run"
        super().__init__(
            f"{run} is stalled: {reason}; requeue it when the cause is gone",
            details={"reason": reason, "run_id": run_id},
        )

    @property
    def reason(self) -> str:
        """Why it stalled."""
        return self._text("reason")


# --- Raised inside workflow and task code ---------------------------------------------------------


class WorkError(AikiError):
    """Base of what a step of a workflow can end with; a workflow retry may try again."""

    retryable = True


class TaskFailed(WorkError):
    """A task failed for good; `error` is its last error, with its cause chain."""

    code = "task-failed"

    def __init__(self, error: ErrorInfo, *, task: str = "", attempts: int = 0) -> None:
        """Keep the error, the task's name and how often it was tried."""
        super().__init__(
            f"task {task!r} failed: {error}" if task else f"task failed: {error}",
            details={"error": error.to_json(), "task": task, "attempts": attempts},
        )

    @property
    def error(self) -> ErrorInfo:
        """The task's last error."""
        return self._error_info()

    @property
    def task(self) -> str:
        """The task's name."""
        return self._text("task")

    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return self._number("attempts")


class ChildFailed(WorkError):
    """A child run ended without a result; `error` says how."""

    code = "child-failed"

    def __init__(self, error: ErrorInfo, *, child: str = "", status: str = "failed") -> None:
        """Keep the child's error, id and terminal status."""
        super().__init__(
            f"child run {child} {status}: {error}",
            details={"error": error.to_json(), "child": child, "status": status},
        )

    @property
    def error(self) -> ErrorInfo:
        """The child's error."""
        return self._error_info()

    @property
    def child(self) -> str:
        """The child's run id."""
        return self._text("child")

    @property
    def status(self) -> str:
        """The child's terminal status."""
        return self._text("status")


class WaitTimeout(WorkError, TimeoutError):
    """The event, child or scope did not come in time."""

    code = "wait-timeout"


class RunTimeout(WorkError, TimeoutError):
    """The run was not done within its own `timeout`."""

    code = "run-timeout"
    retryable = False


class TaskTimeout(WorkError, TimeoutError):
    """One attempt of a task took longer than the task's `timeout`."""

    code = "task-timeout"


class HeartbeatTimeout(WorkError, TimeoutError):
    """A task sent no heartbeat for its `heartbeat_timeout`."""

    code = "heartbeat-timeout"


class TaskProcessDied(WorkError):
    """The process in which a task with `runtime="process"` ran has ended before the task."""

    code = "task-process-died"

    def __init__(self, task: str, exit_code: int) -> None:
        """Name the task and the exit code of its process; below zero: the signal that ended it."""
        super().__init__(
            f"the process of task {task!r} ended with exit code {exit_code} before the task did",
            details={"task": task, "exit_code": exit_code},
        )

    @property
    def exit_code(self) -> int:
        """The exit code of the process; below zero: the signal that ended it."""
        return self._number("exit_code")


class OutcomeUnknown(WorkError):
    """An `at_most_once` task was started and its worker was lost; it may have had its effect."""

    code = "outcome-unknown"
    retryable = False


class NonRetryable(WorkError):
    """Raise it in a task or workflow to fail at once, whatever the retry policy says."""

    code = "non-retryable"
    retryable = False


class RetryAfter(WorkError):
    """Raise it (`Retry.after(seconds)`) to choose the delay before the next attempt.

    It replaces the policy's delay, not its number of attempts.
    """

    code = "retry-after"

    def __init__(self, delay_s: float, message: str = "") -> None:
        """Keep the delay, in seconds."""
        super().__init__(message or f"try again in {delay_s} s", details={"delay_s": delay_s})

    @property
    def delay_s(self) -> float:
        """Seconds until the next attempt."""
        value = self.details.get("delay_s")
        return float(value) if isinstance(value, int | float) else 0.0


# --- What stands in the journal does not fit ------------------------------------------------------


class Divergence(AikiError):
    """The code no longer makes the calls that its journal recorded; never retried."""

    code = "divergence"


class JournalVersionError(AikiError):
    """The journal was written in a format that this release does not read."""

    code = "journal-version"


class RecordedTypeMismatch(AikiError):
    """A recorded value no longer fits the declared type; give the task an `upcast`."""

    code = "recorded-type-mismatch"

    def __init__(self, what: str, path: str, reason: str, *, seq: int | None = None) -> None:
        """Name the task or event, the field, what does not fit, and the entry if it is known."""
        entry = "" if seq is None else f" (entry {seq})"
        super().__init__(
            f"the recorded {what}{entry} does not fit its declared type: {path}: {reason}; "
            "restore the old type or give the task an `upcast`",
            details={"what": what, "path": path, "reason": reason, "seq": seq},
        )

    def at_entry(self, seq: int) -> "RecordedTypeMismatch":
        """Return the same error, naming the journal entry as well."""
        what, reason = self._text("what"), self._text("reason")
        return RecordedTypeMismatch(what, self.path, reason, seq=seq)

    @property
    def seq(self) -> int | None:
        """The journal entry that holds it, where that is known."""
        value = self.details.get("seq")
        return value if isinstance(value, int) else None

    @property
    def path(self) -> str:
        """The field that does not fit."""
        return self._text("path")


# --- Storage --------------------------------------------------------------------------------------


class StorageError(AikiError):
    """The storage failed; the driver's own error is the cause."""

    code = "storage"


class StorageCorrupt(StorageError):
    """What was read back is damaged; restore a backup."""

    code = "storage-corrupt"


class StorageFull(StorageError):
    """No space is left; nothing of the batch was written."""

    code = "storage-full"
    retryable = True


class StorageLocked(StorageError):
    """Another process holds the database; nothing was written."""

    code = "storage-locked"
    retryable = True


class StorageReadOnly(StorageError):
    """The database cannot be written to."""

    code = "storage-read-only"


class StorageTooNew(StorageError):
    """The schema belongs to a newer release; upgrade this program."""

    code = "storage-too-new"


class StorageUnavailable(StorageError):
    """The database cannot be reached, or takes no writes now; nothing was written."""

    code = "storage-unavailable"
    retryable = True


class UnknownOutcome(StorageError):
    """A write may or may not have happened; read the journal back before doing anything else."""

    code = "unknown-outcome"

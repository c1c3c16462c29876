"""Errors about the work itself: how runs end, what steps end with, and journals."""

from aiki_sdk._error import AikiError
from aiki_sdk._error_info import ErrorInfo

# --- How a run ended, raised to whoever awaits it -------------------------------------------------


class RunOutcome(AikiError):
    """Base of the ways in which a run ends without a result."""


class RunFailed(RunOutcome):
    """The run failed; `error` is what it failed with.

    Raised when the result is asked for of a run whose code raised, and whose retries were used
    up.

    What to do: Read `error`; put the cause right, then start or fork the run.
    """

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
    """The run was cancelled; `reason` is what was given.

    Raised when the result is asked for of a run that somebody cancelled.

    What to do: Read `reason`; start another run if it was a mistake.
    """

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
    """The run was ended at once, without running any of its code.

    Raised when the result is asked for of a run that somebody terminated.

    What to do: Look whether something is left half-done: no clean-up code has run.
    """

    code = "run-terminated"


class RunStalled(RunOutcome):
    """The run cannot go on by itself; an operator has to requeue or cancel it.

    Raised when the result is asked for of a run whose code diverged, or whose workers were lost
    too often.

    What to do: See `aiki explain`, put the cause right, then `aiki runs requeue`, or cancel it.
    """

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
    """A task failed for good; `error` is its last error, with its cause chain.

    Raised when every attempt that the task's retry policy allows has failed.

    What to do: Catch it in the workflow where the business has an answer; otherwise put the
    cause right.
    """

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
    """A child run ended without a result; `error` says how.

    Raised when the workflow awaits a child that failed, was cancelled or was terminated.

    What to do: Catch it where the parent can go on without; otherwise look at the child.
    """

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
    """The event, child or scope did not come in time.

    Raised when a wait was given a `timeout` and that has passed.

    What to do: Catch it: it is the business case of an answer that does not come.
    """

    code = "wait-timeout"


class RunTimeout(WorkError, TimeoutError):
    """The run was not done within its own `timeout`.

    Raised when the time that the workflow, or the start, gave to the run has passed.

    What to do: Give it more time, or find out what it waited for.
    """

    code = "run-timeout"
    retryable = False


class TaskTimeout(WorkError, TimeoutError):
    """One attempt of a task took longer than the task's `timeout`.

    Raised when an attempt was cut off; the retry policy decides whether there is another one.

    What to do: Give the task more time, or make it quicker; long tasks send heartbeats.
    """

    code = "task-timeout"


class HeartbeatTimeout(WorkError, TimeoutError):
    """A task sent no heartbeat for its `heartbeat_timeout`.

    Raised when a task that promised heartbeats hangs, or forgot to send them.

    What to do: Send heartbeats more often, or allow longer between them.
    """

    code = "heartbeat-timeout"


class TaskProcessDied(WorkError):
    """The process in which a task with `runtime="process"` ran has ended before the task.

    Raised when the process crashed, or the system killed it, for example for want of memory.

    What to do: Look at the worker's log and its memory; the retry policy decides about another
    attempt.
    """

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
    """An `at_most_once` task was started and its worker was lost; it may have had its effect.

    Raised when a worker is lost while such a task runs, for it must not be started twice.

    What to do: Find out at the other system whether it was done, then decide in the workflow.
    """

    code = "outcome-unknown"
    retryable = False


class NonRetryable(WorkError):
    """Raise it in a task or workflow to fail at once, whatever the retry policy says.

    Raised when the code of a task or workflow says itself that trying again is of no use.

    What to do: Put the cause right that the message names.
    """

    code = "non-retryable"
    retryable = False


class RetryAfter(WorkError):
    """Raise it (`Retry.after(seconds)`) to choose the delay before the next attempt.

    Raised when the code of a task knows how long to wait, and no attempt was left in the end.

    What to do: Look at what asked for the delay, such as a rate limit; allow more attempts.

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
    """The code no longer makes the calls that its journal recorded; never retried.

    Raised when the code of a workflow was changed under a version that has runs.

    What to do: Bring the old code back, or give the new code a version of its own; then
    requeue.
    """

    code = "divergence"


class JournalVersionError(AikiError):
    """The journal was written in a format that this release does not read.

    Raised when an older program opens what a newer one has written.

    What to do: Upgrade the program that reads.
    """

    code = "journal-version"


class RecordedTypeMismatch(AikiError):
    """A recorded value no longer fits the declared type; give the task an `upcast`.

    Raised when the type of a task's result, an event or an input was changed under a version
    that has runs.

    What to do: Give the task an `upcast`, or the new type a new version.
    """

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

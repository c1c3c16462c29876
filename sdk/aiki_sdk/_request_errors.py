"""Errors about what was asked for: malformed, unknown, not allowed now, not reachable."""

from collections.abc import Sequence

from aiki_sdk._error import AikiError
from aiki_sdk._error_info import type_name


class InvalidRequest(AikiError):
    """The request is malformed or asks for something that does not exist; fix it and ask again.

    Raised when an argument, a body, a header or a parameter does not fit, before anything was
    changed.

    What to do: Correct what the message names, and ask again.
    """

    code = "invalid-request"


class DuplicateName(InvalidRequest):
    """Two definitions claim one name.

    Raised when a second workflow, task or event is registered under a name that is taken.

    What to do: Rename one of the two, or raise the version of the workflow.
    """

    code = "duplicate-name"

    def __init__(self, kind: str, name: str, first: str, second: str) -> None:
        """Name both places (`module:line`)."""
        super().__init__(
            f"{kind} {name!r} is defined twice: at {first} and at {second}; rename one of them",
            details={"kind": kind, "name": name, "first": first, "second": second},
        )

    @property
    def name(self) -> str:
        """The name that was claimed twice."""
        return self._text("name")


class LimitExceeded(InvalidRequest):
    """A documented limit was met; the message names it.

    Raised when a batch, a body, a run or a rate goes beyond what one may have.

    What to do: Send less, or in parts; `details` tells the limit. With HTTP status 429, wait
    for `Retry-After`.
    """

    code = "limit-exceeded"

    def __init__(self, limit: str, maximum: int, actual: int, fix: str) -> None:
        """Say which limit, its value, what was asked for, and what to do."""
        super().__init__(
            f"{limit} is limited to {maximum}, not {actual}; {fix}",
            details={"limit": limit, "maximum": maximum, "actual": actual},
        )

    @property
    def limit(self) -> str:
        """The name of the limit."""
        return self._text("limit")


class NotInTask(InvalidRequest):
    """`current_task()` was called where no task is running.

    Raised when code outside of a task, such as a workflow, asks for the task's context.

    What to do: Call `current_task()` in the task itself, and not in a workflow or at import.
    """

    code = "not-in-task"


class NotInWorkflow(InvalidRequest):
    """A durable operation was called where no workflow is running.

    Raised when a task is called, or a run's method is used, outside of the code of a workflow.

    What to do: Call it in a workflow; in a test, call the plain function of the task.
    """

    code = "not-in-workflow"


class PayloadError(InvalidRequest):
    """A value cannot be converted to or from JSON; the message names its place and type.

    Raised when an argument, a result, an event or a published value is of a type that cannot
    travel.

    What to do: Use one of the payload types, or teach the converter yours.
    """

    code = "payload"

    @classmethod
    def at(cls, path: str, value: object, fix: str) -> "PayloadError":
        """Build the error for one value.

        Args:
            path: where it is, such as `order.items[3].price`.
            value: the value itself; only its type is told, for payloads do not belong in messages.
            fix: what is wrong and what to do.
        """
        kind = type_name(type(value))
        return PayloadError(f"{path} ({kind}): {fix}", details={"path": path, "type": kind})

    @property
    def path(self) -> str:
        """Where the value is, such as `order.items[3].price`; empty if it is the document."""
        return self._text("path")

    @property
    def type_name(self) -> str:
        """The type of the value that was refused."""
        return self._text("type")


class PayloadTooLarge(PayloadError):
    """A converted value is larger than the limit.

    Raised when an argument, a result or an event is converted and has too many bytes.

    What to do: Store the value elsewhere and pass its place; `details` tells size and limit.
    """

    code = "payload-too-large"

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        """Name the payload, its size and the limit, in bytes."""
        super().__init__(
            f"{what} is {size_bytes:,} bytes as JSON, more than the limit of {limit_bytes:,}; "
            "store it elsewhere and pass a reference to it",
            details={"path": what, "size_bytes": size_bytes, "limit_bytes": limit_bytes},
        )

    @property
    def size_bytes(self) -> int:
        """Size as JSON, in bytes."""
        return self._number("size_bytes")

    @property
    def limit_bytes(self) -> int:
        """The limit that it exceeds, in bytes."""
        return self._number("limit_bytes")


class UnknownEvent(InvalidRequest):
    """The workflow declares no event of this name.

    Raised when an event is sent, or waited for, that the run's version of the workflow does not
    list.

    What to do: Correct the name, or add the event to `@workflow(events=…)` of a new version.
    """

    code = "unknown-event"

    def __init__(self, event: str, workflow: str, declared: Sequence[str]) -> None:
        """List what the workflow does declare."""
        known = ", ".join(sorted(declared)) or "none"
        super().__init__(
            f"workflow {workflow!r} declares no event {event!r} (declared: {known}); "
            "add it to `events=[...]` or correct the name",
            details={"event": event, "workflow": workflow, "declared": [*sorted(declared)]},
        )

    @property
    def declared(self) -> tuple[str, ...]:
        """The names that the workflow declares."""
        return self._texts("declared")


class UnknownWorkflow(InvalidRequest):
    """No workflow of this name and version is registered.

    Raised when a run is started or forked and neither the server nor a worker has told of it.

    What to do: Correct name and version, or start a worker that has its code.
    """

    code = "unknown-workflow"

    def __init__(self, name: str, version: str | None, registered: Sequence[str]) -> None:
        """List what is registered, as `name@version`."""
        wanted = name if version is None else f"{name}@{version}"
        known = ", ".join(registered) or "none"
        super().__init__(
            f"workflow {wanted!r} is not registered (registered: {known}); "
            "pass it to the worker's `workflows=[...]` or correct the name or version",
            details={"name": name, "version": version, "registered": list(registered)},
        )

    @property
    def registered(self) -> tuple[str, ...]:
        """What is registered, as `name@version`."""
        return self._texts("registered")


class NotFound(AikiError):
    """Nothing of this kind has this id, name or reference in this namespace.

    Raised when a run, path or key is asked for that never was, is in another namespace, or was
    deleted after its retention.

    What to do: Correct the id, name or namespace.
    """

    code = "not-found"


class ReferenceConflict(AikiError):
    """The reference id already names something else: another input, or another parent's run.

    Raised when a start repeats a reference id, or an `Idempotency-Key`, with another input.

    What to do: Use another reference id, or `on_conflict="return_existing"` to have the run
    that there is.
    """

    code = "reference-conflict"


class IllegalTransition(AikiError):
    """The command is not allowed in the run's status; nothing was changed.

    Raised when a command comes in the wrong status, such as resuming a run that is not paused.

    What to do: Look at the run's status, then decide; do not just repeat it.
    """

    code = "illegal-transition"

    def __init__(self, command: str, status: str, *, run_id: str = "") -> None:
        """Name the command and the status that forbids it."""
        run = f"run {run_id}" if run_id else "the run"
        super().__init__(
            f"cannot {command}: {run} is {status}",
            details={"command": command, "status": status, "run_id": run_id},
        )

    @property
    def command(self) -> str:
        """What was asked for."""
        return self._text("command")

    @property
    def status(self) -> str:
        """The status that forbids it."""
        return self._text("status")


class RunEnded(IllegalTransition):
    """The run has ended, so it takes no more events, questions or commands.

    Raised when something is sent to a run after its end.

    What to do: Read its result; start another run for what has to be done.
    """

    code = "run-ended"


class AskRejected(AikiError):
    """The workflow, or the question's validator, refused to answer; `reason` says why.

    Raised when a question was delivered, and its validator or the workflow said no.

    What to do: Read the reason, and ask something else.
    """

    code = "ask-rejected"

    def __init__(self, reason: str = "", *, question: str = "", run_id: str = "") -> None:
        """Keep the reason that was given."""
        what = f"question {question!r} to run {run_id}" if question else "the question"
        super().__init__(
            f"{what} was rejected: {reason or 'no reason given'}",
            details={"reason": reason, "question": question, "run_id": run_id},
        )

    @property
    def reason(self) -> str:
        """Why, in the words of the workflow or its validator."""
        return self._text("reason")


class UnknownQuestion(InvalidRequest):
    """The workflow declares no question of this name.

    Raised when a question is asked that the run's version of the workflow does not list.

    What to do: Correct the name, or add the question to a new version of the workflow.
    """

    code = "unknown-question"

    def __init__(self, question: str, workflow: str, declared: Sequence[str]) -> None:
        """List what the workflow does declare."""
        known = ", ".join(sorted(declared)) or "none"
        super().__init__(
            f"workflow {workflow!r} declares no question {question!r} (declared: {known}); "
            "add it to `questions=[...]` or correct the name",
            details={"question": question, "workflow": workflow, "declared": [*sorted(declared)]},
        )

    @property
    def declared(self) -> tuple[str, ...]:
        """The names that the workflow declares."""
        return self._texts("declared")


class StaleClaim(AikiError):
    """The sender no longer holds the run; it must drop it without side effects.

    Raised when a worker was taken for lost, its run went to another one, and then it wrote
    after all.

    What to do: Nothing: the worker drops the run by itself. If it happens often, look for
    blocked event loops and slow networks.
    """

    code = "stale-claim"


class Unauthorized(AikiError):
    """The API key is missing, wrong, expired, or lacks the right.

    Raised when the server keeps keys and the request shows none that it knows.

    What to do: Send a valid key as `Authorization: Bearer …`; see `AIKI_API_KEY`.
    """

    code = "unauthorized"


class Unavailable(AikiError):
    """The server cannot be reached or cannot answer now; trying again may help.

    Raised when the network fails, the server starts or stops, or too much waits for it.

    What to do: Try again after `Retry-After`. Clients do so by themselves where that is safe.
    """

    code = "unavailable"
    retryable = True


class ResultTimeout(AikiError, TimeoutError):
    """The client's own wait ended before the run did; the run goes on.

    Raised when `result(timeout=…)` or a long poll ends first; over HTTP, also when a body is
    too slow.

    What to do: Ask again; nothing happened to the run.
    """

    code = "result-timeout"
    retryable = True

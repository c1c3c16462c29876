"""Errors about what was asked for: malformed, unknown, not allowed now, not reachable."""

from collections.abc import Sequence

from aiki_sdk._error import AikiError
from aiki_sdk._error_info import type_name


class InvalidRequest(AikiError):
    """The request is malformed or asks for something that does not exist; fix it and ask again."""

    code = "invalid-request"


class DuplicateName(InvalidRequest):
    """Two definitions claim one name."""

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
    """A documented limit was met; the message names it."""

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
    """`current_task()` was called where no task is running."""

    code = "not-in-task"


class NotInWorkflow(InvalidRequest):
    """A durable operation was called where no workflow is running."""

    code = "not-in-workflow"


class PayloadError(InvalidRequest):
    """A value cannot be converted to or from JSON; the message names its place and type."""

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
    """A converted value is larger than the limit."""

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
    """The workflow declares no event of this name."""

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
    """No workflow of this name and version is registered."""

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
    """Nothing of this kind has this id, name or reference in this namespace."""

    code = "not-found"


class ReferenceConflict(AikiError):
    """The reference id already names something else: another input, or another parent's run."""

    code = "reference-conflict"


class IllegalTransition(AikiError):
    """The command is not allowed in the run's status; nothing was changed."""

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
    """The run has ended, so it takes no more events, questions or commands."""

    code = "run-ended"


class AskRejected(AikiError):
    """The workflow, or the question's validator, refused to answer; `reason` says why."""

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
    """The workflow declares no question of this name."""

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
    """The sender no longer holds the run; it must drop it without side effects."""

    code = "stale-claim"


class Unauthorized(AikiError):
    """The API key is missing, wrong, expired, or lacks the right."""

    code = "unauthorized"


class Unavailable(AikiError):
    """The server cannot be reached or cannot answer now; trying again may help."""

    code = "unavailable"
    retryable = True


class ResultTimeout(AikiError, TimeoutError):
    """The client's own wait ended before the run did; the run goes on."""

    code = "result-timeout"
    retryable = True

"""Errors as HTTP: RFC 9457 problem documents with the status that each code stands for.

Every `AikiError` becomes one here and nowhere else. What is no `AikiError` is a bug: it is logged
with its traceback, and the client is told no more than that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from attrs import Factory, frozen

from aiki_sdk import AikiError, InvalidRequest, JsonValue, LimitExceeded, NotFound

PROBLEM_JSON: Final = "application/problem+json"
TYPE_PREFIX: Final = "https://aiki.invalid/errors/"
"""Stable, and no address: the code behind it names the page, `docs/reference/errors/<code>.md`."""
RETRY_AFTER_S: Final = 1
"""What `Retry-After` says where nothing better is known: long enough for a restart of an actor."""

STATUSES: Final[Mapping[str, int]] = {
    "error": 500,
    "invalid-request": 400,
    "duplicate-name": 400,
    "limit-exceeded": 413,
    "not-in-task": 400,
    "not-in-workflow": 400,
    "payload": 400,
    "payload-too-large": 413,
    "unknown-event": 404,
    "unknown-question": 404,
    "unknown-workflow": 404,
    "not-found": 404,
    "reference-conflict": 409,
    "illegal-transition": 409,
    "run-ended": 409,
    "stale-claim": 409,
    "unauthorized": 401,
    "unavailable": 503,
    "subscriber-too-slow": 503,
    "ask-rejected": 409,
    "result-timeout": 408,
    "run-failed": 409,
    "run-cancelled": 409,
    "run-terminated": 409,
    "run-stalled": 409,
    "task-failed": 409,
    "child-failed": 409,
    "wait-timeout": 409,
    "run-timeout": 409,
    "task-timeout": 409,
    "heartbeat-timeout": 409,
    "task-process-died": 409,
    "outcome-unknown": 409,
    "non-retryable": 409,
    "retry-after": 409,
    "divergence": 409,
    "journal-version": 500,
    "recorded-type-mismatch": 409,
    "storage": 500,
    "storage-corrupt": 500,
    "storage-full": 503,
    "storage-locked": 503,
    "storage-read-only": 500,
    "storage-too-new": 500,
    "storage-unavailable": 503,
    "unknown-outcome": 503,
}
"""The HTTP status of every code; a code that is not here is a bug of the server: 500."""

ABSENT: Final[Mapping[str, str]] = {
    "/": "this version has no dashboard; see /v1/runs, or `aiki runs list`",
    "/v1/schedules": "this version has no schedules; start runs with delay_s or at",
    "/v1/keys": "this version keeps no keys; the server is told them by AIKI_API_KEYS",
}
"""What is asked for and not there yet, by the path of it and of all below; and what is there."""

TITLES: Final[Mapping[int, str]] = {
    400: "The request is not valid",
    401: "A valid API key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "The method is not allowed here",
    408: "The request took too long to arrive",
    409: "Not possible in the present state",
    413: "Too large",
    415: "The body is not JSON",
    429: "Too many requests",
    500: "The server failed",
    503: "Not available now",
}


@frozen(kw_only=True)
class ProblemBody:
    """An error, as RFC 9457 has it.

    Attributes:
        type: a name for the kind of error, ending in its code; not an address to fetch, but its
            last part is the name of the page about it, `docs/reference/errors/<code>.md`.
        title: the kind of problem, in words.
        status: the HTTP status.
        detail: what happened, to what, and what to do about it.
        code: the stable name of the kind of error.
        details: the facts of `detail`, for programs.
    """

    type: str
    title: str
    status: int
    detail: str
    code: str
    details: Mapping[str, JsonValue] = Factory(lambda: dict[str, JsonValue]())


class HttpError(Exception):
    """A request that is refused with a status of its own; never leaves the gateway."""

    def __init__(self, status: int, error: AikiError, **headers: str) -> None:
        """Take the status, the error that the body tells, and headers by name."""
        super().__init__(error.message)
        self.status = status
        self.error = error
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


def no_such_path(path: str) -> NotFound:
    """Return what is answered for a path that does not exist."""
    known = [above for above in ABSENT if path == above or path.startswith(f"{above}/")]
    if known:
        return NotFound(ABSENT[known[0]])
    return NotFound(f"path {path[:200]!r} does not exist; see /openapi.json")


def problem_of(error: AikiError, status: int | None = None) -> ProblemBody:
    """Return an error as a problem document."""
    found = STATUSES.get(error.code, 500) if status is None else status
    return ProblemBody(
        type=f"{TYPE_PREFIX}{error.code}",
        title=TITLES.get(found, "The server failed"),
        status=found,
        detail=error.message,
        code=error.code,
        details=dict(error.details),
    )


def refused(status: int, message: str, **headers: str) -> HttpError:
    """Return the refusal of a request that is not valid as HTTP."""
    return HttpError(status, InvalidRequest(message), **headers)


def too_many(limit: str, maximum: int, fix: str, *, wait_s: float) -> HttpError:
    """Return the refusal of a request for a rate's sake: 429, with the time to wait."""
    error = LimitExceeded(limit, maximum, maximum + 1, fix)
    return HttpError(429, error, retry_after=str(max(1, math.ceil(wait_s))))


def headers_of(problem: ProblemBody) -> dict[str, str]:
    """Return the headers that a problem's status asks for."""
    if problem.status == 503:
        return {"retry-after": str(RETRY_AFTER_S)}
    if problem.status == 401:
        return {"www-authenticate": "Bearer"}
    return {}

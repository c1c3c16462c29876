"""An error as a value: what the journal keeps and the wire carries of an exception.

`ErrorInfo.from_exception` never fails and is bounded: message, traceback, depth of the cause chain
and number of grouped errors each have a limit, so that no exception can fill a journal. Text is
cleaned of what JSON or a database cannot hold. Nothing here ever rebuilds the original exception:
names and text only.
"""

import traceback as tracebacks
from itertools import islice
from typing import TYPE_CHECKING, Final, cast

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from aiki_sdk._json import JsonValue

MESSAGE_BYTES_MAX: Final = 8 * 1024
"""Longer messages are nearly always a dumped payload or response body."""

TRACEBACK_BYTES_MAX: Final = 32 * 1024
"""About 400 frames. The end is kept: it is where the error happened."""

DEPTH_MAX: Final = 10
"""Levels of cause chain and exception groups together."""

GROUP_MAX: Final = 16
"""Errors of one exception group that are kept; the rest are counted."""

LEAVES_MAX: Final = 4
"""Errors of a group that its message names; the details have more."""

LEAF_BYTES_MAX: Final = 1024
"""Of each of them. Together they leave room for the group's own text."""

_CUT: Final = "…"


def type_name(cls: type) -> str:
    """Name a class for journals and messages: `ValueError`, `my_app.errors.CardDeclined`."""
    if cls.__module__ in ("builtins", "__main__"):
        return cls.__qualname__
    return f"{cls.__module__}.{cls.__qualname__}"


@frozen
class ErrorInfo:
    """What is kept of an exception.

    Attributes:
        type: its class, as `type_name` gives it.
        message: its text, at most 8 KiB; that of a group goes on with the errors in it, four at
            most: `Exceptions from Trio nursery (1 sub-exception): ValueError: boom`.
        traceback: its own frames as text, at most 32 KiB, or None if it was never raised.
        cause: `__cause__`, or `__context__` if that was not suppressed.
        code: the stable code, if it is an `AikiError`.
        retryable: False if nothing should try again on account of this error.
        details: an `AikiError`'s details; for a group `{"exceptions": [...], "omitted": n}`.
    """

    type: str
    message: str
    traceback: str | None = None
    cause: "ErrorInfo | None" = None
    code: str | None = None
    retryable: bool = True
    details: "JsonValue" = None

    def __str__(self) -> str:
        return f"{self.type}: {self.message}" if self.message else self.type

    @classmethod
    def from_exception(cls, error: BaseException) -> "ErrorInfo":
        """Take down an exception with its causes and, if it is a group, its members."""
        return _describe(error, DEPTH_MAX, frozenset())

    def to_json(self) -> "dict[str, JsonValue]":
        """Return the JSON form; absent fields are left out."""
        body: dict[str, JsonValue] = {"type": self.type, "message": self.message}
        if self.traceback is not None:
            body["traceback"] = self.traceback
        if self.cause is not None:
            body["cause"] = self.cause.to_json()
        if self.code is not None:
            body["code"] = self.code
        if not self.retryable:
            body["retryable"] = False
        if self.details is not None:
            body["details"] = self.details
        return body

    @classmethod
    def from_json(cls, body: "Mapping[str, JsonValue]") -> "ErrorInfo":
        """Read the JSON form; what is missing or of the wrong type takes its default."""
        cause = body.get("cause")
        return cls(
            type=_text(body.get("type")) or "Exception",
            message=_text(body.get("message")) or "",
            traceback=_text(body.get("traceback")),
            cause=cls.from_json(cause) if isinstance(cause, dict) else None,
            code=_text(body.get("code")),
            retryable=body.get("retryable") is not False,
            details=body.get("details"),
        )


def _text(value: "JsonValue") -> str | None:
    return value if isinstance(value, str) else None


def _describe(error: BaseException, levels: int, seen: frozenset[int]) -> ErrorInfo:
    # Imported late: the errors are built on this module.
    from aiki_sdk._errors import AikiError

    seen |= {id(error)}
    cause = error.__cause__
    if cause is None and not error.__suppress_context__:
        cause = error.__context__
    # A chain can be a circle; `seen` ends it as `levels` ends a long one.
    follow = cause is not None and levels > 1 and id(cause) not in seen
    known = error if isinstance(error, AikiError) else None
    details: JsonValue = None
    if known is not None:
        details = dict(known.details) or None
    elif levels > 1:
        details = _describe_group(error, levels - 1, seen)
    return ErrorInfo(
        type=type_name(type(error)),
        message=cut_text(_message(error) + _leaves_text(error), MESSAGE_BYTES_MAX),
        traceback=_traceback(error),
        cause=_describe(cause, levels - 1, seen) if cause is not None and follow else None,
        code=known.code if known is not None else None,
        retryable=known.retryable if known is not None else isinstance(error, Exception),
        details=details,
    )


def _describe_group(error: object, levels: int, seen: frozenset[int]) -> "JsonValue":
    if not isinstance(error, BaseExceptionGroup):
        return None
    members = cast("BaseExceptionGroup[BaseException]", error).exceptions
    kept: list[JsonValue] = [_describe(one, levels, seen).to_json() for one in members[:GROUP_MAX]]
    omitted = len(members) - len(kept)
    return {"exceptions": kept, "omitted": omitted} if omitted else {"exceptions": kept}


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001  # somebody's __str__; the error must be kept anyway
        return f"<no text: __str__ raised {type_name(type(broken))}>"


def _leaves(error: BaseException) -> "Iterator[BaseException]":
    """Return the errors of a group and of the groups in it, in order."""
    pending = [error]
    while pending:
        one = pending.pop()
        if isinstance(one, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", one)
            pending.extend(reversed(group.exceptions))
        else:
            yield one


def _leaves_text(error: BaseException) -> str:
    """Say what a group is about: its own text only counts what is in it."""
    if not isinstance(error, BaseExceptionGroup):
        return ""
    leaves = _leaves(cast("BaseExceptionGroup[BaseException]", error))
    named = [_leaf_text(leaf) for leaf in islice(leaves, LEAVES_MAX)]
    more = sum(1 for _ in leaves)
    return ": " + "; ".join([*named, *([f"and {more} more"] if more else [])])


def _leaf_text(error: BaseException) -> str:
    message, name = _message(error), type_name(type(error))
    return cut_text(f"{name}: {message}" if message else name, LEAF_BYTES_MAX)


def _traceback(error: BaseException) -> str | None:
    if error.__traceback__ is None:
        return None
    text = "".join(tracebacks.format_tb(error.__traceback__))
    return cut_text(text, TRACEBACK_BYTES_MAX, keep_end=True)


def cut_text(text: str, bytes_max: int, *, keep_end: bool = False) -> str:
    """Make any text storable: no NUL, no lone surrogates, at most `bytes_max` bytes of UTF-8."""
    data = text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace")
    if len(data) <= bytes_max:
        return data.decode()
    room = bytes_max - len(_CUT.encode())
    if keep_end:
        return _CUT + data[-room:].decode("utf-8", "ignore")
    return data[:room].decode("utf-8", "ignore") + _CUT

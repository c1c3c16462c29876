"""The one place where asyncpg's errors are told apart, and become ours: what happened, what to do.

Four kinds matter to who tries again: the connection is gone (whether a statement was carried out
is unknown); the server cannot take it now; the transaction was refused for the sake of another (it
is undone, and may be tried again); everything else (it is undone, and would fail again).
"""

from __future__ import annotations

from typing import Final

import asyncpg

from aiki_sdk import (
    AikiError,
    PayloadError,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageLocked,
    StorageReadOnly,
    StorageUnavailable,
)

DRIVER_ERRORS: Final = (
    OSError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)
"""Everything that the driver raises: for `except`."""

REPLACED: Final = "AK002"
"""Another server, or another connection, has taken a writer's place."""

_GONE: Final = ("08", "57P01", "57P02", "57P03", "57P04", "57P05", "25006", "53300", "25P03")
"""SQLSTATEs, or their classes, after which a new connection may do better."""

_VALUES: Final = "22"
"""The class of what is wrong with a value; also what the driver itself refuses to send."""

_REFUSED_FOR_OTHERS: Final = frozenset({"40001", "40P01", "55P03"})

_KNOWN: Final[tuple[tuple[str, type[StorageError], str, str], ...]] = (
    ("25006", StorageUnavailable, "is read-only for now", "make it, or its successor, writable"),
    ("53100", StorageFull, "cannot grow, nothing was written", "free space on its disk"),
    ("53", StorageUnavailable, "has no room for more", "raise its limits, or end what fills them"),
    ("57014", StorageUnavailable, "took too long", "look for locks, or raise statement_timeout_s"),
    ("57", StorageUnavailable, "is being stopped or started", "wait until it is back"),
    ("08", StorageUnavailable, "cannot be reached", "check the server and the network"),
    ("40", StorageUnavailable, "refused for the sake of another transaction", "try again"),
    ("55P03", StorageUnavailable, "did not give a lock in time", "look for who holds it"),
    (REPLACED, StorageLocked, "was taken over by another server", "end this one, or that"),
    ("28", StorageError, "does not let this user in", "check user, password and pg_hba.conf"),
    ("3D000", StorageError, "does not exist", "create it"),
    ("3F000", StorageError, "has no such schema", "run `aiki migrate`"),
    ("42P01", StorageError, "lacks a table", "run `aiki migrate`"),
    ("42883", StorageError, "lacks a function", "run `aiki migrate`"),
    ("42501", StorageReadOnly, "may not be used so by this user", "grant it the schema"),
    ("XX001", StorageCorrupt, "is damaged", "stop, keep a copy, and restore a backup"),
    ("XX002", StorageCorrupt, "has a damaged index", "run REINDEX, and check the disk"),
)


def sqlstate(error: BaseException) -> str:
    """Return the server's code of an error, or nothing."""
    code = error.sqlstate if isinstance(error, asyncpg.PostgresError) else None
    return code if isinstance(code, str) else ""


def is_gone(error: BaseException) -> bool:
    """Tell whether the connection is of no more use, and another may be."""
    if isinstance(error, asyncpg.PostgresError):
        return sqlstate(error).startswith(_GONE)
    if isinstance(error, asyncpg.InternalClientError):
        # The other side talks nonsense, or the host that takes writes is not there yet.
        return True
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "closing" in str(error)
    return isinstance(error, OSError | TimeoutError | EOFError)


def is_refused_for_others(error: BaseException) -> bool:
    """Tell whether the transaction was undone, and may succeed when done again."""
    return sqlstate(error) in _REFUSED_FOR_OTHERS


def translate(error: BaseException, name: str) -> AikiError:
    """Return our error for one of the driver; raise it `from` the original.

    A `StorageError`; a `PayloadError` where a value cannot be stored.

    Args:
        error: what the driver raised.
        name: the database, as people know it; the driver's own words hold no password.
    """
    code = sqlstate(error)
    details = {"database": name, "sqlstate": code or None}
    reason = str(error) or type(error).__name__
    if code.startswith(_VALUES):
        message = f"a value cannot be stored in database {name} ({reason}); change it"
        return PayloadError(message, details=details)
    for prefix, cls, what, remedy in _KNOWN:
        if code and code.startswith(prefix):
            return cls(f"database {name} {what} ({reason}); {remedy}", details=details)
    if is_gone(error):
        message = f"database {name} cannot be reached ({reason}); check the server and the network"
        return StorageUnavailable(message, details=details)
    return StorageError(f"database {name} failed: {reason}", details=details)

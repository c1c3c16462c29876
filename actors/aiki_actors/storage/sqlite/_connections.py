"""Opening connections, and making sure that one runtime at a time owns a file.

The owner holds an advisory lock on `<file>-owner`, next to the database; the system drops it with
the process, so that a killed runtime leaves nothing to clean up. Readers need no lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sqlite3
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from attrs import frozen

from aiki_sdk import StorageError, StorageLocked, StorageReadOnly

from ._settings import SqliteSettings

SQLITE_VERSION_MIN: Final = (3, 37, 0)
"""STRICT tables; released in November 2021."""

_CACHED_STATEMENTS: Final = 256
_WAL_BYTES_KEPT: Final = 64 * 1024 * 1024
"""A log that grew beyond this is cut back when it is folded into the database."""


@frozen
class Database:
    """Where the database is: a file, or (`path` None) the memory of one connection."""

    path: Path | None

    @property
    def name(self) -> str:
        """The database, as messages name it."""
        return ":memory:" if self.path is None else str(self.path)

    def own(self, stack: ExitStack) -> None:
        """Become the file's only owner until `stack` is closed.

        Raises:
            StorageLocked: another runtime owns it.
            StorageReadOnly: the folder cannot be written to.
            StorageError: the folder does not exist.
        """
        if self.path is None:
            return
        lock = f"{os.path.realpath(self.path)}-owner"
        try:
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            cannot_write = isinstance(error, PermissionError) or error.errno == errno.EROFS
            cls = StorageReadOnly if cannot_write else StorageError
            raise cls(
                f"database {self.name} cannot be owned: {lock} cannot be opened "
                f"({error.strerror}); check that the folder exists and that this user may "
                "write there"
            ) from error
        stack.callback(os.close, handle)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StorageLocked(
                f"database {self.name} is in use by another runtime (it holds {lock}); "
                "stop that one, or choose another file"
            ) from error

    def connect(self, settings: SqliteSettings) -> sqlite3.Connection:
        """Open a connection for writing; creates the file if there is none.

        Raises:
            sqlite3.Error: it cannot be opened.
            StorageError: the file system or the SQLite library lacks something.
        """
        if sqlite3.sqlite_version_info < SQLITE_VERSION_MIN:
            needed = ".".join(map(str, SQLITE_VERSION_MIN))
            raise StorageError(
                f"SQLite {sqlite3.sqlite_version} is too old; install {needed} or newer"
            )
        connection = self._open(settings)
        try:
            (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            if self.path is not None and mode != "wal":
                raise StorageError(
                    f"database {self.name} cannot have a write-ahead log (mode {mode}); "
                    "put it on a local disk"
                )
            connection.execute(f"PRAGMA synchronous = {settings.synchronous}")
            connection.execute(f"PRAGMA wal_autocheckpoint = {settings.wal_pages_max:d}")
            connection.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES_KEPT:d}")
        except BaseException:
            connection.close()
            raise
        return connection

    def connect_reader(self, settings: SqliteSettings) -> sqlite3.Connection:
        """Open a connection that cannot write.

        Raises:
            sqlite3.Error: it cannot be opened.
        """
        connection = self._open(settings)
        try:
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _open(self, settings: SqliteSettings) -> sqlite3.Connection:
        # One thread at a time uses a connection, but not always the same one.
        connection = sqlite3.connect(
            self.name,
            timeout=settings.busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=_CACHED_STATEMENTS,
        )
        try:
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA foreign_keys = ON")
            connection.execute(f"PRAGMA cache_size = -{settings.cache_bytes // 1024:d}")
            connection.execute(f"PRAGMA mmap_size = {settings.mmap_bytes:d}")
        except BaseException:
            connection.close()
            raise
        return connection

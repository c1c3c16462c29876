"""The one thread that writes, and what a batch's way to the disk is.

Callers hand requests over in a queue; the thread takes what waits and writes it in one transaction
(group commit), bounded by the settings. Answers go back through Trio's thread-safe door.

What becomes of a batch:

* it is committed, and every change has its result; or
* something failed before the commit: it is rolled back, nothing is written, the callers get the
  error; or
* the commit itself failed: then what is on the disk decides, read on a fresh connection. Only if
  that fails too the outcome is unknown (`UnknownOutcome`).

Invariants: a request gets exactly one answer; the writing connection is used by this thread alone;
the thread ends only when told to, after everything that was queued before.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Final, TypeAlias

import trio
from attrs import Factory, define, field, frozen

from aiki_actors.faults import fault_point
from aiki_actors.storage._changes import EncodedChange
from aiki_actors.storage._port import Appended, AppendResult
from aiki_sdk import StorageError, UnknownOutcome

from ._batch import Refused, write_all, write_each
from ._connections import Database
from ._courtesy import Courtesy
from ._errors import translate
from ._log_space import PAGE_BYTES, LogSpace
from ._migrations import migrate
from ._settings import SqliteSettings

_APPENDED: Final = Appended()


@define(eq=False)
class AppendRequest:
    """The changes of one `append`, and what became of each. `done` is set with the answer."""

    changes: Sequence[EncodedChange]
    done: trio.Event = field(factory=trio.Event, init=False)
    results: list[AppendResult] = field(factory=lambda: list[AppendResult](), init=False)
    error: Exception | None = field(default=None, init=False)


@define(eq=False)
class CallRequest:
    """A function to run with the writing connection, in its turn. `done` is set afterwards."""

    call: Callable[[sqlite3.Connection], None]
    done: trio.Event = field(factory=trio.Event, init=False)
    error: Exception | None = field(default=None, init=False)


@frozen
class _Stop:
    """Nothing more will be asked."""


_Queued: TypeAlias = AppendRequest | CallRequest | _Stop


@define(eq=False)
class Writer:
    """The writing thread of one database.

    Attributes:
        opened: answered when the database is open, or with the reason why it is not.
    """

    _database: Database
    _settings: SqliteSettings
    _token: trio.lowlevel.TrioToken
    _courtesy: Courtesy
    opened: CallRequest = field(factory=lambda: CallRequest(_nothing), init=False)
    _queue: SimpleQueue[_Queued] = field(factory=lambda: SimpleQueue[_Queued](), init=False)
    _connection: sqlite3.Connection | None = field(default=None, init=False)
    _log_space: LogSpace = field(
        default=Factory(
            lambda self: LogSpace(self._database.path, self._settings.wal_pages_max * PAGE_BYTES),
            takes_self=True,
        ),
        init=False,
    )
    _stopped: bool = field(default=False, init=False)
    # A daemon, so that a program that crashed can end; a proper end is waited for.
    _thread: Thread = field(
        default=Factory(
            lambda self: Thread(
                target=self._run, name=f"sqlite {self._database.name}", daemon=True
            ),
            takes_self=True,
        ),
        init=False,
    )

    def start(self) -> None:
        """Start the thread; it opens the database first."""
        self._courtesy.begin()
        self._thread.start()

    def submit(self, request: AppendRequest | CallRequest) -> None:
        """Queue a request.

        Raises:
            StorageError: the database is closed.
        """
        if self._stopped:
            raise StorageError(f"database {self._database.name} is closed; open it again")
        self._courtesy.begin()
        self._queue.put(request)

    def stop(self) -> None:
        """Let the thread end when everything that was queued before is done."""
        if not self._stopped:
            self._stopped = True
            self._queue.put(_Stop())

    async def wait_ended(self) -> None:
        """Wait until the thread is gone, at most `outcome_wait_s` of real time."""
        # Joined in a thread: a deadline on Trio's clock would be over at once where it is mocked.
        await trio.to_thread.run_sync(self._thread.join, self._settings.outcome_wait_s)

    # --- In the thread ----------------------------------------------------------------------------

    def _run(self) -> None:
        with ExitStack() as stack:
            stack.callback(self._disconnect)
            if self._opens(stack):
                self._serve()

    def _opens(self, stack: ExitStack) -> bool:
        try:
            self._database.own(stack)
            migrate(self._connected(), self._database.name)
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller must be told
            self.opened.error = self._ours(error)
        self._tell([self.opened.done])
        return self.opened.error is None

    def _serve(self) -> None:
        held: _Queued | None = None
        while True:
            request = held if held is not None else self._queue.get()
            held = None
            match request:
                case AppendRequest():
                    group, held = self._gather(request)
                    self._write(group)
                case CallRequest():
                    self._perform(request)
                case _Stop():
                    return

    def _gather(self, first: AppendRequest) -> tuple[list[AppendRequest], _Queued | None]:
        """Take what waits and fits into one transaction; and the first request that does not."""
        group = [first]
        changes = len(first.changes)
        size_bytes = sum([one.size_bytes for one in first.changes])
        while True:
            try:
                request = self._queue.get_nowait()
            except Empty:
                return group, None
            if not isinstance(request, AppendRequest):
                return group, request
            changes += len(request.changes)
            size_bytes += sum([one.size_bytes for one in request.changes])
            limits = self._settings
            if changes > limits.batch_changes_max or size_bytes > limits.batch_bytes_max:
                return group, request
            group.append(request)

    def _write(self, group: list[AppendRequest]) -> None:
        try:
            self._transact(group)
        except (StorageError, sqlite3.OperationalError) as error:
            # The database's trouble is everybody's.
            for request in group:
                request.error = self._ours(error)
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers must be told
            # Something in the changes themselves; it must not spoil the appends of others.
            if len(group) > 1:
                for request in group:
                    self._write([request])
                return
            group[0].error = self._ours(error)
        self._tell([request.done for request in group])
        if self._queue.empty():
            self._log_space.committed()

    def _transact(self, group: list[AppendRequest]) -> None:
        """Write the changes of all requests in one transaction and set their results."""
        changes = [one for request in group for one in request.changes]
        connection = self._connected()
        try:
            connection.execute("BEGIN IMMEDIATE")
            results: list[list[AppendResult]]
            try:
                write_all(connection, changes)
                results = [[_APPENDED for _ in request.changes] for request in group]
            except (Refused, sqlite3.IntegrityError):
                connection.execute("ROLLBACK")
                connection.execute("BEGIN IMMEDIATE")
                results = [write_each(connection, request.changes) for request in group]
        except BaseException:
            self._roll_back(connection)
            raise
        fault_point("commit.begun")
        self._commit(connection, _witness(changes, [one for part in results for one in part]))
        fault_point("commit.done")
        for request, result in zip(group, results, strict=True):
            request.results = result

    def _commit(self, connection: sqlite3.Connection, witness: EncodedChange | None) -> None:
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            if connection.in_transaction:  # refused before it began, such as SQLITE_BUSY
                self._roll_back(connection)
                raise
            if not self._is_written(witness, error):
                raise

    def _is_written(self, witness: EncodedChange | None, error: sqlite3.Error) -> bool:
        """Find out whether a transaction whose COMMIT failed is there, by one of its entries.

        Raises:
            UnknownOutcome: reading back failed too, or there is no entry to look for.
        """
        failure: Exception = error
        if witness is not None:
            try:
                if self._database.path is not None:
                    self._disconnect()
                seq, _, _, body = witness.rows[-1]
                found = self._connected().execute(
                    "SELECT body FROM journal WHERE run_id = ? AND seq = ?",
                    (witness.change.run_id, seq),
                )
                return bool(found.fetchone() == (body,))
            except (sqlite3.Error, StorageError) as second:
                failure = second
        raise UnknownOutcome(
            f"database {self._database.name} failed while committing ({error}) and cannot tell "
            "whether the batch was written; restart, which reads every run back"
        ) from failure

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        if not connection.in_transaction:  # SQLite has done it by itself, as on a full disk
            return
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            # Closing discards the transaction as well; the error that led here is raised on.
            self._disconnect()

    def _perform(self, request: CallRequest) -> None:
        try:
            request.call(self._connected())
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller must be told
            request.error = self._ours(error)
        self._tell([request.done])

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._database.connect(self._settings)
        return self._connection

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _ours(self, error: Exception) -> Exception:
        """Return an error for one caller: a new one each, for each adds its own traceback."""
        if isinstance(error, StorageError):
            ours = type(error).from_wire(error.message, error.details)
            ours.__cause__ = error
        elif isinstance(error, sqlite3.Error):
            ours = translate(error, self._database.name)
            ours.__cause__ = error
        else:
            return error
        return ours

    def _tell(self, events: Sequence[trio.Event]) -> None:
        def set_all() -> None:
            for event in events:
                event.set()
                # Told here and not where it is waited for: a tick earlier, so that a busy loop
                # does not pause for a thread that is done.
                self._courtesy.end()

        try:
            self._token.run_sync_soon(set_all)
        except trio.RunFinishedError:
            # Trio is gone, and with it everybody who could be told.
            return


def _nothing(_connection: sqlite3.Connection) -> None:
    return


def _witness(
    changes: Sequence[EncodedChange], results: Sequence[AppendResult]
) -> EncodedChange | None:
    """Return the last change that wrote an entry: it is there exactly if the batch is."""
    for one, result in zip(reversed(changes), reversed(results), strict=True):
        if one.rows and isinstance(result, Appended):
            return one
    return None

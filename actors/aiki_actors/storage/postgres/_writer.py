"""A writing connection: group commit, and what becomes of a transaction whose answer was lost.

What waits is written in one transaction; while that is on its way the next batch gathers. A batch
is one call of a function of the schema: one round trip, and one transaction.

What becomes of a batch:

* it is committed, and every change has its result; or
* the server refused: nothing is written, the callers get the error; where it refused for the sake
  of another transaction, or was not reached, the batch is sent again for `retry_s` first; or
* the connection was lost on the way. Then a new one takes the writer's place in the database: it
  changes the token, which waits for the old transaction, if it still runs, and shuts it out, if it
  has not arrived. The mark beside the token then says whether the batch is there, and with what
  outcome. Only if no connection can be made in `outcome_wait_s` the outcome is unknown
  (`UnknownOutcome`); the token is still changed before anything else is written.

Invariants: a request gets exactly one answer; batches of a writer follow each other; nothing that
was sent under an old token can be executed later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, TypeAlias

import trio
from attrs import define, field

from aiki_actors.faults import fault_point
from aiki_actors.storage._changes import EncodedChange
from aiki_actors.storage._port import AppendResult
from aiki_sdk import Rng, StorageError, StorageLocked, UnknownOutcome

from ._asyncio import LOGGER, AsyncioHost
from ._batch import (
    ALL_FIT,
    FORMAT_OF_ENTRIES,
    Batch,
    columns_of,
    document_of,
    results_of,
    statement,
)
from ._connection import Link, Target, connect
from ._errors import DRIVER_ERRORS, is_gone, is_refused_for_others, translate
from ._ownership import Backoff

_NEW_TOKEN: Final = "SELECT gen_random_uuid()::text"  # noqa: S105  # no password
_REPLACE: Final = (
    "UPDATE writers SET token = $3 WHERE slot = $1 AND token = ANY ($2::text[])"
    " RETURNING batch, outcome"
)
TOKENS_KEPT: Final = 1_000
"""Former tokens that a writer knows as its own: as many lost connections as a failover may undo."""


@define(eq=False)
class AppendRequest:
    """Changes of one `append`, and what became of each. `done` is set with the answer."""

    changes: Sequence[EncodedChange]
    done: trio.Event = field(factory=trio.Event, init=False)
    results: list[AppendResult] = field(factory=lambda: list[AppendResult](), init=False)
    error: Exception | None = field(default=None, init=False)


@define(eq=False)
class CallRequest:
    """A function of the schema to call, and its outcome. `done` is set with the answer."""

    function: str
    values: tuple[object, ...]
    done: trio.Event = field(factory=trio.Event, init=False)
    outcome: str = field(default="", init=False)
    error: Exception | None = field(default=None, init=False)


Request: TypeAlias = AppendRequest | CallRequest


@define(eq=False)
class Writer:
    """One of the writers of a database; `run` serves what is submitted until `stop`."""

    _host: AsyncioHost
    _target: Target
    _rng: Rng
    slot: int
    _token: str
    commits: int = field(default=0, init=False)
    _next_token: str | None = field(default=None, init=False)
    _former: deque[str] = field(factory=lambda: deque[str](maxlen=TOKENS_KEPT), init=False)
    _replaced: bool = field(default=True, init=False)  # the token is known to be nobody else's
    _batch: int = field(default=0, init=False)
    _mark: tuple[int, str] = field(default=(0, ""), init=False)
    _link: Link | None = field(default=None, init=False)
    _queue: deque[Request] = field(factory=lambda: deque[Request](), init=False)
    _arrival: trio.Event = field(factory=trio.Event, init=False)
    _stopped: bool = field(default=False, init=False)
    ended: trio.Event = field(factory=trio.Event, init=False)

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises:
            StorageError: the database is closed.
        """
        if self._stopped:
            raise StorageError(f"database {self._target.name} is closed; open it again")
        self._queue.append(request)
        self._arrival.set()

    def stop(self) -> None:
        """Let `run` end when everything that was queued before is done."""
        self._stopped = True
        self._arrival.set()

    async def run(self) -> None:
        """Serve requests, in their order, until stopped."""
        try:
            while self._queue or not self._stopped:
                if not self._queue:
                    self._arrival = trio.Event()
                    await self._arrival.wait()
                    continue
                request = self._queue.popleft()
                if isinstance(request, CallRequest):
                    await self._call(request)
                else:
                    await self._write(self._gather(request))
        finally:
            self._drop()
            self.ended.set()

    async def close(self) -> None:
        """Take leave of the server."""
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    # --- Requests ---------------------------------------------------------------------------------

    def _gather(self, first: AppendRequest) -> list[AppendRequest]:
        """Take what waits and fits into one transaction."""
        group = [first]
        changes = len(first.changes)
        size_bytes = sum([one.size_bytes for one in first.changes])
        limits = self._target.settings
        while self._queue:
            request = self._queue[0]
            if not isinstance(request, AppendRequest):
                break
            changes += len(request.changes)
            size_bytes += sum([one.size_bytes for one in request.changes])
            if changes > limits.batch_changes_max or size_bytes > limits.batch_bytes_max:
                break
            group.append(request)
            self._queue.popleft()
        return group

    async def _write(self, group: list[AppendRequest]) -> None:
        batch = Batch([request.changes for request in group])
        try:
            results = results_of(batch, await self._append(batch))
        except Exception as error:  # noqa: BLE001  # whatever it is, the callers must be told
            if len(group) > 1 and not isinstance(error, StorageError):
                # Something in the changes themselves; it must not spoil the appends of others.
                for request in group:
                    await self._write([request])
                return
            for request in group:
                request.error = _own(error)
        else:
            for request, part in zip(group, results, strict=True):
                request.results = part
        for request in group:
            request.done.set()

    async def _append(self, batch: Batch) -> str:
        """Write a batch; return its outcome."""
        found = columns_of(batch.changes)
        if found is not None:
            function, columns = found
            outcome = await self._transact(function, (FORMAT_OF_ENTRIES, *columns))
            if outcome is not None:
                return outcome
        values = (FORMAT_OF_ENTRIES, document_of(batch))
        outcome = await self._transact("append_each", values)
        assert outcome is not None, "append_each tells every outcome"
        return outcome

    async def _call(self, request: CallRequest) -> None:
        try:
            request.outcome = await self._transact(request.function, request.values) or ""
        except Exception as error:  # noqa: BLE001  # whatever it is, the caller must be told
            request.error = _own(error)
        request.done.set()

    # --- Transactions -----------------------------------------------------------------------------

    async def _transact(self, function: str, values: tuple[object, ...]) -> str | None:
        """Call a function in a transaction of its own, again where that may help.

        Returns:
            The outcome; None: the function wrote nothing, and said so.

        Raises:
            StorageError: nothing was written.
            UnknownOutcome: that is not known.
        """
        backoff = Backoff(self._rng, self._target.settings.retry_s)
        while True:
            sent = False
            self._batch += 1
            try:
                link = await self._connected()
                sent = True
                fault_point("commit.begun")
                call = statement(function, len(values) + 3)
                answer = await link.value(call, self.slot, self._token, self._batch, *values)
                fault_point("commit.done")
                self.commits += 1
                return _outcome(answer)
            except DRIVER_ERRORS as error:
                if is_gone(error):
                    self._lose()
                    if sent:
                        outcome = await self._find_out(self._batch, error)
                        if outcome is not None:
                            return outcome
                elif not is_refused_for_others(error):
                    raise translate(error, self._target.name) from error
                if not await backoff.pause():
                    raise translate(error, self._target.name) from error

    async def _find_out(self, batch: int, lost: Exception) -> str | None:
        """Find out what became of a batch whose answer was lost; None: it is not written.

        Raises:
            UnknownOutcome: the database cannot be reached, or is another server's now.
        """
        backoff = Backoff(self._rng, self._target.settings.outcome_wait_s)
        while True:
            try:
                await self._connected()
            except DRIVER_ERRORS as error:
                self._drop()
                if not await backoff.pause():
                    message = (
                        f"database {self._target.name} was lost while committing ({lost}) and "
                        f"cannot be asked ({error}); read back what was written when it is there"
                    )
                    raise UnknownOutcome(message) from error
            except StorageLocked as error:
                message = f"{error.message}; what it wrote last may, or may not, be there"
                raise UnknownOutcome(message, details=error.details) from error
            else:
                marked, outcome = self._mark
                return outcome if marked == batch else None

    async def _connected(self) -> Link:
        """Return a connection that nobody can stand in the way of: the token is ours alone."""
        if self._link is not None and self._link.usable:
            return self._link
        self._lose()
        link = await connect(self._host, self._target, "writer")
        try:
            await self._replace(link)
        except BaseException:
            link.drop()
            raise
        self._link = link
        return link

    async def _replace(self, link: Link) -> None:
        """Shut out what a lost connection may have left on its way."""
        if self._replaced:
            return
        if self._next_token is None:
            self._next_token = str(await link.value(_NEW_TOKEN))
        # Said again after a lost answer it finds the new token, and gives the same answer. After a
        # failover that lost the last commits it finds a former one: no other server was there.
        ours = [*self._former, self._token, self._next_token]
        row = await link.row(_REPLACE, self.slot, ours, self._next_token)
        if row is None:
            name = self._target.name
            message = f"database {name} was taken over by another server; end this one, or that"
            LOGGER.error("%s: nothing can be written here any more", message)
            raise StorageLocked(message, details={"database": name})
        self._former.append(self._token)
        self._token, self._next_token = self._next_token, None
        self._mark = (int(row["batch"]), str(row["outcome"]))
        self._replaced = True

    def _lose(self) -> None:
        """Give the connection up; what it has sent may still be on its way."""
        if self._link is not None:
            self._drop()
            self._replaced = False

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.drop()


def _outcome(answer: object) -> str | None:
    if isinstance(answer, bool):
        return ALL_FIT if answer else None
    assert isinstance(answer, str), f"a function of the schema answered {answer!r}"
    return answer


def _own(error: Exception) -> Exception:
    """Return an error for one caller: a new one each, for each adds its own traceback."""
    if not isinstance(error, StorageError):
        return error
    ours = type(error).from_wire(error.message, error.details)
    ours.__cause__ = error
    return ours

"""`PostgresStorage`: runs in a PostgreSQL database that one server at a time owns.

Writes go through a few `Writer`s, over which runs are spread; reads use connections of their own, a
bounded number at a time, and see everything that was acknowledged before they began.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define

from aiki_actors.engine import Entry, Micros, Notice, Projection
from aiki_actors.storage._changes import EncodedChange, encode_change
from aiki_actors.storage._codec import decode_entry, decode_notice
from aiki_actors.storage._listing import check_limit, read_cursor, write_cursor
from aiki_actors.storage._port import (
    AppendResult,
    Change,
    ClaimedRun,
    DueRun,
    KnownWorkflow,
    ReadyRun,
    RunFilter,
    RunPage,
)
from aiki_actors.storage._postgres_settings import DEFAULT_SETTINGS, PostgresSettings
from aiki_sdk import Rng, StorageError, SystemRng, UnknownOutcome, dumps, loads

from . import _queries as queries
from ._asyncio import AsyncioHost, open_asyncio
from ._batch import PRIORITIES
from ._connection import Link, Target, connect
from ._errors import DRIVER_ERRORS, is_gone, translate
from ._migrations import migrate, newest_version, schema_version
from ._ownership import Backoff, Ownership, check_server
from ._pool import Pool
from ._split import split
from ._writer import AppendRequest, CallRequest, Request, Writer


@define(eq=False)
class PostgresReader:
    """The reading part of a `Storage`, on a database that may belong to another process."""

    _target: Target
    _pool: Pool

    async def journal(
        self, run_id: str, *, after: int = 0, limit: int | None = None
    ) -> list[Entry]:
        """Return a run's entries; see `Storage.journal`.

        Raises:
            JournalVersionError: a newer release wrote one of them.
            StorageError: the database failed.
        """
        rows = await self._pool.rows(queries.JOURNAL, run_id, after, limit)
        return [decode_entry(run_id, *row) for row in rows]

    async def run(self, run_id: str) -> Projection | None:
        """Return the run's row, or None."""
        row = await self._pool.row(queries.ONE_RUN, run_id)
        return None if row is None else queries.run_of(row)

    async def find(self, namespace: str, workflow: str, reference_id: str) -> Projection | None:
        """Return the run that holds this reference id now, or None."""
        row = await self._pool.row(queries.FIND, namespace, workflow, reference_id)
        return None if row is None else queries.run_of(row)

    async def runs(self, where: RunFilter, *, limit: int, cursor: str | None = None) -> RunPage:
        """Return a page of runs; see `Storage.runs`."""
        check_limit(limit)
        end = None if cursor is None else read_cursor(cursor)
        query = queries.listing(where, limit + 1, end)
        if query is None:
            await trio.lowlevel.checkpoint()
            return RunPage((), None)
        rows = await self._pool.rows(query.text, *query.values)
        found = queries.runs_of(rows[:limit])
        return RunPage(found, write_cursor(found[-1]) if len(rows) > limit else None)

    async def count(self, where: RunFilter) -> int:
        """Count the runs that the filter selects."""
        query = queries.counting(where)
        if query is None:
            await trio.lowlevel.checkpoint()
            return 0
        return int(await self._pool.value(query.text, *query.values))

    async def ready(self, *, limit: int, exclude: Sequence[str] = ()) -> list[ReadyRun]:
        """Return runs that stand in the queue; see `Storage.ready`."""
        check_limit(limit)
        if exclude:
            rows = await self._pool.rows(queries.READY, limit, list(exclude))
        else:
            rows = await self._pool.rows(queries.READY_ALL, limit)
        return [
            ReadyRun(run_id, namespace, workflow, version, pool, PRIORITIES[rank], Micros(ready_at))
            for run_id, namespace, workflow, version, pool, rank, ready_at in rows
        ]

    async def due(self, *, before: Micros, limit: int, after: DueRun | None = None) -> list[DueRun]:
        """Return runs due before a time; see `Storage.due`."""
        check_limit(limit)
        if after is None:
            rows = await self._pool.rows(queries.DUE, before, limit)
        else:
            rows = await self._pool.rows(
                queries.DUE_AFTER, before, limit, after.due_at, after.run_id
            )
        return [DueRun(run_id, Micros(due_at)) for run_id, due_at in rows]

    async def claimed(self, *, limit: int, after: str | None = None) -> list[ClaimedRun]:
        """Return claimed runs; see `Storage.claimed`."""
        check_limit(limit)
        rows = await self._pool.rows(queries.CLAIMED, after or "", limit)
        return [ClaimedRun(run_id, worker_id, epoch) for run_id, worker_id, epoch in rows]

    async def notices(self, *, limit: int, after: str | None = None) -> list[Notice]:
        """Return notices that are still owed; see `Storage.notices`."""
        check_limit(limit)
        rows = await self._pool.rows(queries.NOTICES, after or "", limit)
        return [decode_notice(*row) for row in rows]

    async def workflows(self) -> list[KnownWorkflow]:
        """Return every workflow that is kept."""
        rows = await self._pool.rows(queries.WORKFLOWS)
        return [
            KnownWorkflow(namespace, name, version, loads(definition))
            for namespace, name, version, definition in rows
        ]

    async def size_bytes(self) -> int:
        """Return the size of the tables and their indexes, free space in them included."""
        return int(await self._pool.value(queries.SIZE))


@define(eq=False)
class PostgresStorage(PostgresReader):
    """A `Storage` on PostgreSQL; opened by `open_postgres`."""

    _writers: Sequence[Writer]

    async def append(self, changes: Sequence[Change]) -> list[AppendResult]:
        """Make the changes durable; see `Storage.append`.

        Calls that wait while a transaction is on its way share the next one; that changes nothing
        for any of them. A long call may be spread over several writers, a transaction each. A call
        that is cancelled before it handed its changes over writes nothing. One that is cancelled
        later still returns what became of them, as if it had been shielded; only if the database
        gives no answer within `outcome_wait_s` it raises `UnknownOutcome`.

        Raises:
            PayloadError: a value in a change cannot be stored; nothing was written.
            StorageError: the database failed, or is closed; nothing was written.
            UnknownOutcome: the changes, or some of them, may or may not have been written.
        """
        encoded = [encode_change(change) for change in changes]
        await trio.lowlevel.checkpoint_if_cancelled()
        if not encoded:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return []
        parts = self._parts(encoded)
        requests: list[AppendRequest] = []
        for slot, part in enumerate(parts):
            if part:
                requests.append(AppendRequest([encoded[index] for index in part]))
                self._writers[slot].submit(requests[-1])
        for request in requests:
            await self._answer_to(request)
        _raise_errors(requests)
        results: list[AppendResult | None] = [None] * len(encoded)
        for part, request in zip(filter(None, parts), requests, strict=True):
            for index, result in zip(part, request.results, strict=True):
                results[index] = result
        return [result for result in results if result is not None]

    def _parts(self, encoded: Sequence[EncodedChange]) -> list[list[int]]:
        """Return the indexes of the changes for each writer; a short call takes one."""
        writers = len(self._writers)
        if writers == 1:
            return [list(range(len(encoded)))]
        if len(encoded) >= self._target.settings.split_min:
            return split(encoded, writers)
        first = split(encoded[:1], writers)
        return [list(range(len(encoded))) if part else [] for part in first]

    async def delete_ended(
        self,
        *,
        before: Micros,
        limit: int,
        namespace: str | None = None,
        workflow: str | None = None,
        excluding: Sequence[str] = (),
    ) -> int:
        """Delete ended runs, in one transaction; see `Storage.delete_ended`."""
        check_limit(limit)
        await trio.lowlevel.checkpoint_if_cancelled()
        values = (before, limit, namespace, workflow, list(excluding))
        return int(await self._call("delete_ended", values))

    async def put_workflows(self, workflows: Sequence[KnownWorkflow]) -> None:
        """Keep workflows, in one transaction; see `Storage.put_workflows`."""
        rows = {(one.namespace, one.name, one.version): dumps(one.definition) for one in workflows}
        await trio.lowlevel.checkpoint_if_cancelled()
        if not rows:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return
        columns = zip(*[(*key, data) for key, data in rows.items()], strict=True)
        await self._call("put_workflows", tuple([list(column) for column in columns]))

    async def _call(self, function: str, values: tuple[object, ...]) -> str:
        """Call a function of the schema, in its turn, and return its outcome."""
        request = CallRequest(function, values)
        self._writers[0].submit(request)
        await self._answer_to(request)
        _raise_errors([request])
        return request.outcome

    async def _answer_to(self, request: Request) -> None:
        """Wait until a write has ended, cancelled or not."""
        try:
            await request.done.wait()
        except trio.Cancelled:
            # The write goes on whatever happens here. Its answer, which is near, is worth more
            # than a quick unwinding; the cancellation comes again at the next checkpoint.
            with trio.move_on_after(self._target.settings.outcome_wait_s, shield=True):
                await request.done.wait()
            if not request.done.is_set():
                raise UnknownOutcome(
                    f"database {self._target.name} did not answer within "
                    f"{self._target.settings.outcome_wait_s:g} s (outcome_wait_s) after the write "
                    "was cancelled; read back what was written"
                ) from None


def _raise_errors(requests: Sequence[Request]) -> None:
    """Raise what went wrong; where a part was written and another not, neither holds for all."""
    errors = [request.error for request in requests if request.error is not None]
    if not errors:
        return
    for error in errors:
        if isinstance(error, UnknownOutcome):
            raise error
    if len(errors) < len(requests):
        raise UnknownOutcome(
            f"{len(requests) - len(errors)} of {len(requests)} parts were written, the others "
            f"not ({errors[0]}); read back what was written"
        ) from errors[0]
    raise errors[0]


@asynccontextmanager
async def open_postgres(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS, *, rng: Rng | None = None
) -> AsyncGenerator[PostgresStorage, None]:
    """Open a database, own it, and close it at the end of the block.

    Args:
        url: `postgresql://user:password@host:port/database`, with the parameters that libpq knows.
        settings: bounds, patience and safety.
        rng: where the chance in pauses comes from. Default: the machine's.

    Raises:
        InvalidRequest: the URL is not PostgreSQL's.
        StorageLocked: another server owns the database.
        StorageTooNew: a newer release has written to it.
        StorageUnavailable: it cannot be reached.
        StorageError: the server is too old or may lose what it acknowledged, the schema is older
            than this release or another program's, or the user is not let in.
    """
    target = Target(url, settings)
    chance = rng or SystemRng()
    async with open_asyncio() as host:
        ownership = Ownership(host, target, chance)
        await ownership.take()
        pool = Pool(host, target, chance)
        writers = [
            Writer(host, target, chance, slot, token) for slot, token in enumerate(ownership.tokens)
        ]
        host.nursery.start_soon(ownership.keep)
        for writer in writers:
            host.nursery.start_soon(writer.run)
        try:
            yield PostgresStorage(target, pool, writers)
        finally:
            await _close(target, ownership, pool, writers)


async def _close(
    target: Target, ownership: Ownership, pool: Pool, writers: Sequence[Writer]
) -> None:
    for writer in writers:
        writer.stop()
    with trio.move_on_after(target.settings.outcome_wait_s, shield=True):
        for writer in writers:
            await writer.ended.wait()
        await pool.close()
        # Last: while a write is on its way nobody else may own the database.
        await ownership.release()


@asynccontextmanager
async def open_postgres_reader(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS, *, rng: Rng | None = None
) -> AsyncGenerator[PostgresReader, None]:
    """Open a database for reading alone, whether or not a server owns it.

    Raises:
        InvalidRequest: the URL is not PostgreSQL's.
        StorageTooNew: a newer release has written to it.
        StorageUnavailable: it cannot be reached.
        StorageError: its schema is older, it belongs to another program, or cannot be read.
    """
    target = Target(url, settings)
    chance = rng or SystemRng()
    async with open_asyncio() as host:
        version = await _asked(host, target, chance)
        if version != newest_version():
            raise StorageError(
                f"database {target.name} has schema version {version} and this release reads "
                f"{newest_version()}; run `aiki migrate`",
                details={"database": target.name, "version": version},
            )
        pool = Pool(host, target, chance)
        try:
            yield PostgresReader(target, pool)
        finally:
            with trio.move_on_after(target.settings.connect_timeout_s, shield=True):
                await pool.close()


async def _asked(host: AsyncioHost, target: Target, rng: Rng) -> int:
    """Return the version of the schema."""
    async with _migration_link(host, target, rng) as link:
        return await schema_version(link)


@asynccontextmanager
async def _migration_link(
    host: AsyncioHost, target: Target, rng: Rng
) -> AsyncGenerator[Link, None]:
    link = await _insist(host, target, Backoff(rng, target.settings.retry_s))
    try:
        yield link
    except DRIVER_ERRORS as error:
        raise translate(error, target.name) from error
    finally:
        await link.close()


async def _insist(host: AsyncioHost, target: Target, backoff: Backoff) -> Link:
    """Connect, again and again while the server is not there."""
    while True:
        try:
            return await connect(host, target, "migration")
        except DRIVER_ERRORS as error:
            if not is_gone(error) or not await backoff.pause():
                raise translate(error, target.name) from error


async def postgres_schema_version(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS
) -> tuple[int, int]:
    """Return the version of a database's schema, 0: none, and the one that this release needs.

    Raises:
        StorageTooNew: a newer release has written to it.
        StorageError: it belongs to another program, or cannot be reached.
    """
    async with open_asyncio() as host:
        return await _asked(host, Target(url, settings), SystemRng()), newest_version()


async def migrate_postgres(
    url: str, settings: PostgresSettings = DEFAULT_SETTINGS
) -> tuple[int, int]:
    """Bring a database's schema up to date; return the versions before and after.

    Several may do this at once, beside a server that is running: they take turns. One that is
    killed in the middle leaves the schema as it was.

    Raises:
        StorageTooNew: a newer release has written to it.
        StorageError: the server or the schema cannot be used; nothing was changed.
    """
    async with (
        open_asyncio() as host,
        _migration_link(host, Target(url, settings), SystemRng()) as link,
    ):
        await check_server(link)
        return await migrate(link)

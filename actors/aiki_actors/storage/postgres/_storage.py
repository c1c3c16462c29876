"""`PostgresStorage`: runs in a PostgreSQL database that one server at a time owns.

Writes go through a few `Writer`s, over which runs are spread; reads use connections of their own, a
bounded number at a time, and see everything that was acknowledged before they began.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

import trio
from attrs import define

from aiki_actors.engine import Micros
from aiki_actors.storage._changes import EncodedChange, encode_change
from aiki_actors.storage._listing import check_limit
from aiki_actors.storage._port import AppendResult, Change, KnownWorkflow
from aiki_actors.storage._postgres_settings import DEFAULT_SETTINGS, PostgresSettings
from aiki_sdk import Rng, SystemRng, UnknownOutcome, dumps

from ._asyncio import open_asyncio
from ._connection import Target
from ._ownership import Ownership
from ._pool import Pool
from ._reader import PostgresReader
from ._split import split
from ._writer import AppendRequest, CallRequest, Request, Writer


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

"""Who may write: one server at a time owns a database.

Two things together. A lock that a server holds on a connection of its own, and that the database
gives back with that connection: it keeps a second server from opening. And a token per writing
connection, in the database, that each write must name: whoever takes a writer's place, after a lost
connection or as the next owner, changes the token, and with it shuts out everything that was sent
before and has not been executed yet. The lock is a courtesy, the token is the fence: it is no
number that could be given out a second time after a failover that lost the last commits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import trio
from attrs import define, field

from aiki_sdk import Rng, StorageError, StorageLocked

from ._asyncio import LOGGER, AsyncioHost
from ._connection import Link, Target, connect
from ._errors import DRIVER_ERRORS, is_gone, translate
from ._migrations import OWNER_LOCK, lock_key, migrate, newest_version, schema_version

VERSION_MIN: Final = 130000
"""The first with `gen_random_uuid`; it came out in September 2020."""

_FIRST_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 1.0

_SERVER: Final = """
SELECT current_setting('server_version_num')::integer AS version,
    current_setting('server_encoding') AS encoding,
    current_setting('fsync') AS fsync,
    current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit
"""
_LOCK: Final = "SELECT pg_try_advisory_lock($1, $2)"
_HOLDER: Final = """
SELECT format(
    'on %s, backend %s',
    coalesce(host(activity.client_addr) || ':' || activity.client_port, 'the database''s host'),
    activity.pid
)
FROM pg_locks JOIN pg_stat_activity AS activity ON activity.pid = pg_locks.pid
WHERE locktype = 'advisory' AND granted AND classid = $1::bigint::oid AND objid = $2::bigint::oid
    AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_TAKE: Final = """
WITH others AS (
    UPDATE writers SET token = gen_random_uuid()::text WHERE slot >= $1
)
INSERT INTO writers (slot, token, batch, outcome)
SELECT slot, gen_random_uuid()::text, 0, '' FROM generate_series(0, $1::integer - 1) AS slot
ON CONFLICT (slot) DO UPDATE SET token = excluded.token, batch = 0, outcome = ''
RETURNING slot, token
"""


@define(eq=False)
class Backoff:
    """Pauses that grow, with chance in them, until time is up."""

    _rng: Rng
    _within_s: float
    _pause_s: float = field(default=_FIRST_PAUSE_S, init=False)
    _deadline: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin now."""
        self._deadline = trio.current_time() + self._within_s

    async def pause(self) -> bool:
        """Pause; False: time is up."""
        pause = self._pause_s * (0.5 + self._rng.random() / 2)
        self._pause_s = min(self._pause_s * 2, _LONGEST_PAUSE_S)
        if trio.current_time() + pause > self._deadline:
            return False
        await trio.sleep(pause)
        return True


async def check_server(link: Link) -> None:
    """Refuse a server that is too old, does not speak UTF-8, or may lose what it acknowledged.

    Raises:
        StorageError: naming the setting, its value and the remedy.
    """
    found = await link.row(_SERVER)
    assert found is not None, "a SELECT without FROM has one row"
    name, version = link.target.name, int(found["version"])
    if version < VERSION_MIN:
        message = (
            f"database {name} is PostgreSQL {version // 10000}; this release needs "
            f"{VERSION_MIN // 10000} or newer: upgrade the server"
        )
        raise StorageError(message, details={"database": name, "version": version})
    if found["encoding"] != "UTF8":
        message = (
            f"database {name} has encoding {found['encoding']}, which cannot hold every text; "
            "create it with ENCODING 'UTF8'"
        )
        raise StorageError(message, details={"database": name})
    if link.target.settings.allow_unsafe:
        return
    for setting in ("fsync", "full_page_writes", "synchronous_commit"):
        if found[setting] == "off":
            message = (
                f"database {name} has {setting}=off, so that a crash may take what was "
                f"acknowledged; turn it on, or set allow_unsafe if nothing in it matters"
            )
            raise StorageError(message, details={"database": name, "setting": setting})


@define(eq=False)
class Ownership:
    """This server's hold on a database, from `take` on.

    Attributes:
        tokens: the first token of each writer.
    """

    _host: AsyncioHost
    _target: Target
    _rng: Rng
    tokens: list[str] = field(factory=lambda: list[str](), init=False)
    _link: Link | None = field(default=None, init=False)
    _lost: trio.Event = field(factory=trio.Event, init=False)
    _keeping: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _kept: trio.Event = field(factory=trio.Event, init=False)

    async def take(self) -> None:
        """Connect, check the server and its schema, and become the database's only owner.

        Raises:
            StorageLocked: another server owns it.
            StorageTooNew: a newer release has written to it.
            StorageUnavailable: it cannot be reached.
            StorageError: the server or the schema cannot be used.
        """
        settings = self._target.settings
        backoff = Backoff(self._rng, settings.retry_s)
        await self._insisting(backoff, self._take)

    async def _insisting(self, backoff: Backoff, step: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await step()
            except DRIVER_ERRORS as error:
                self.drop()
                if not is_gone(error) or not await backoff.pause():
                    raise translate(error, self._target.name) from error
            except BaseException:
                self.drop()
                raise
            else:
                return

    async def _take(self) -> None:
        settings = self._target.settings
        link = self._link = await connect(self._host, self._target, "owner")
        await check_server(link)
        version = await schema_version(link)
        if version < newest_version():
            if not settings.migrate:
                raise _outdated(self._target, version)
            await self._migrate()
        await self._lock(link)
        rows = await link.rows(_TAKE, settings.writers)
        self.tokens = [row["token"] for row in sorted(rows, key=lambda row: int(row["slot"]))]
        self._watch(link)

    async def _migrate(self) -> None:
        link = await connect(self._host, self._target, "migration")
        try:
            await migrate(link)
        finally:
            await link.close()

    async def _lock(self, link: Link) -> None:
        backoff = Backoff(self._rng, self._target.settings.own_wait_s)
        key = (OWNER_LOCK, lock_key(self._target.settings.schema))
        while not await link.value(_LOCK, *key):
            if not await backoff.pause():
                unsigned = key[1] % (1 << 32)
                holder = await link.value(_HOLDER, key[0], unsigned) or "another process"
                raise StorageLocked(
                    f"database {self._target.name} is in use by another server ({holder}); stop "
                    "that one, or use another database or schema",
                    details={"database": self._target.name, "holder": holder},
                )

    def _watch(self, link: Link) -> None:
        self._lost = lost = trio.Event()
        link.driver.add_termination_listener(lambda _connection: lost.set())

    async def keep(self) -> None:
        """Get the lock back whenever its connection is lost; runs until `release`.

        Who took the database meanwhile has changed the tokens: the writers find out, at once.
        """
        try:
            with self._keeping:
                while True:
                    await self._lost.wait()
                    await self._try_to_regain()
        finally:
            self._kept.set()

    async def _try_to_regain(self) -> None:
        self.drop()
        try:
            await self._regain()
        except (*DRIVER_ERRORS, StorageError) as error:
            LOGGER.warning("the owner's lock is not back yet: %s", error)
            self.drop()
            await trio.sleep(_LONGEST_PAUSE_S * (0.5 + self._rng.random() / 2))

    async def _regain(self) -> None:
        link = self._link = await connect(self._host, self._target, "owner")
        await self._lock(link)
        self._watch(link)

    def drop(self) -> None:
        """Cut the lock's connection."""
        link, self._link = self._link, None
        if link is not None:
            link.drop()

    async def release(self) -> None:
        """Give the lock back, and end `keep`."""
        self._keeping.cancel()
        await self._kept.wait()
        link, self._link = self._link, None
        if link is not None:
            await link.close()


def _outdated(target: Target, version: int) -> StorageError:
    found = f"has schema version {version}" if version else "has no schema yet"
    return StorageError(
        f"database {target.name} {found} and this release needs {newest_version()}; run "
        "`aiki migrate --database-url …`, or set migrate=True in its settings",
        details={"database": target.name, "version": version, "version_max": newest_version()},
    )

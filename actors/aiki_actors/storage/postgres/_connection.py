"""A connection to the server: how it is made, what it asks for itself, and calls with a bound.

The planner is told never to read whole tables: every question has an index, and no plan may depend
on statistics that are not there yet.
"""

from __future__ import annotations

import math
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

import asyncpg
import trio
from asyncpg.connect_utils import SessionAttribute
from attrs import define, field, frozen

from aiki_actors.storage._postgres_settings import PostgresSettings
from aiki_sdk import InvalidRequest

from ._asyncio import AsyncioHost
from ._errors import DRIVER_ERRORS

Role: TypeAlias = Literal["owner", "writer", "reader", "migration"]
Row: TypeAlias = "asyncpg.Record"
Driver: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_PLANNER: Final = {
    "jit": "off",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
_CLOSE_S: Final = 1.0


class NoAnswer(ConnectionError):
    """A statement was sent, and nothing came back in time."""


@frozen
class Target:
    """Which database, and how it is used.

    Attributes:
        url: `postgresql://…`, as the driver takes it; it may hold a password, so it is never shown.
        settings: bounds and patience.
    """

    url: str = field(repr=False)
    settings: PostgresSettings

    def __attrs_post_init__(self) -> None:
        """Refuse what is no URL of PostgreSQL's.

        Raises:
            InvalidRequest: naming what is wrong, and no secret.
        """
        scheme = self.url.partition("://")[0]
        if scheme not in {"postgresql", "postgres"} or not self.name:
            message = (
                f"storage URL {scheme}://… is not valid: use postgresql://user:password@host:5432/"
                "database"
            )
            raise InvalidRequest(message)

    @property
    def name(self) -> str:
        """The database, as messages name it: host and database, no user, no password."""
        parts = urlsplit(self.url)
        host = parts.netloc.rpartition("@")[2]
        return f"{host or 'localhost'}{parts.path}"

    def session(self, role: Role) -> dict[str, str]:
        """Return the server's settings for a connection."""
        settings = self.settings
        # A migration may build an index over millions of rows, or wait for another that does.
        bound_s = 0 if role == "migration" else settings.statement_timeout_s
        timeout = f"{math.ceil(bound_s * 1000)}ms"
        session = {
            "application_name": f"aiki-trio {role}",
            "search_path": settings.schema,
            "statement_timeout": timeout,
            "lock_timeout": timeout,
            # So that the locks of a server that lost its power are given up soon.
            "tcp_keepalives_idle": "10",
            "tcp_keepalives_interval": "5",
            "tcp_keepalives_count": "3",
        }
        if role in {"reader", "writer"}:
            session |= _PLANNER
        if role == "writer":
            session["plan_cache_mode"] = "force_generic_plan"
        if role == "reader":
            session["default_transaction_read_only"] = "on"
        return session


@define(eq=False)
class Link:
    """One connection. At most one statement is on its way at a time.

    Attributes:
        target: the database.
        driver: the connection as asyncpg has it.
    """

    target: Target
    _host: AsyncioHost
    driver: Driver
    _within_s: float

    @property
    def usable(self) -> bool:
        """Whether it was not closed, by either side, as far as is known here."""
        return not self.driver.is_closed()

    async def value(self, statement: str, *values: object) -> Any:
        """Run a statement and return the first value of its first row.

        Raises:
            NoAnswer: none came in time; the connection is given up.
            asyncpg.PostgresError: the server refused.
            asyncpg.InterfaceError: a value cannot be sent.
            OSError: the connection broke.
        """
        return await self._run(self.driver.fetchval(statement, *values))

    async def row(self, statement: str, *values: object) -> Row | None:
        """Run a statement and return its first row; raises as `value` does."""
        row: Row | None = await self._run(self.driver.fetchrow(statement, *values))
        return row

    async def rows(self, statement: str, *values: object) -> list[Row]:
        """Run a statement and return its rows; raises as `value` does."""
        rows: list[Row] = await self._run(self.driver.fetch(statement, *values))
        return rows

    async def execute(self, script: str) -> None:
        """Run statements that give nothing back; raises as `value` does."""
        await self._run(self.driver.execute(script))

    async def _run(self, call: Any) -> Any:
        task = self._host.start(call)
        with trio.move_on_after(self._within_s, shield=True):
            await self._host.wait(task)
        if not task.done():
            self.drop()
            task.cancel()
            with trio.CancelScope(shield=True):
                await self._host.wait(task)
        if task.cancelled():
            message = f"database {self.target.name} did not answer within {self._within_s:g} s"
            raise NoAnswer(message)
        return task.result()

    def drop(self) -> None:
        """Cut the connection, at once and without a farewell."""
        self.driver.terminate()

    async def close(self) -> None:
        """Take leave of the server, or cut the connection if that takes long."""
        if self.usable:
            await self._host.run(_farewell(self.driver))


async def _farewell(driver: Driver) -> None:
    try:
        await driver.close(timeout=_CLOSE_S)
    except DRIVER_ERRORS:
        # `close` has cut it already; there is nobody whom its troubles concern.
        driver.terminate()


async def connect(host: AsyncioHost, target: Target, role: Role) -> Link:
    """Make a connection.

    Raises:
        OSError: nobody answers there, or not in time.
        asyncpg.PostgresError: the server refused.
        asyncpg.InterfaceError: the URL is not valid.
    """
    # Of several hosts the one that takes writes; after a failover that is another one.
    several = "," in urlsplit(target.url).netloc
    # (A reader's own session is read-only, so it has to be asked for in another way.)
    wanted = SessionAttribute.primary if role == "reader" else SessionAttribute.read_write
    coroutine = asyncpg.connect(
        target.url,
        timeout=target.settings.connect_timeout_s,
        server_settings=target.session(role),
        target_session_attrs=wanted if several else None,
    )
    settings = target.settings
    within_s = settings.statement_timeout_s + settings.reply_margin_s
    driver = await host.run(coroutine)
    return Link(target, host, driver, math.inf if role == "migration" else within_s)

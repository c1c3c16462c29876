"""Reading connections: a bounded number, each used by one question at a time.

A question whose connection was lost is asked again on a new one, for a while: nothing was changed.
One whose caller is cancelled goes on by itself and its connection is used again afterwards, so that
cancelling costs no connection.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import trio
from attrs import define, field

from aiki_sdk import Rng, StorageError

from ._asyncio import AsyncioHost, result_of
from ._connection import Link, NoAnswer, Row, Target, connect
from ._errors import DRIVER_ERRORS, is_gone, is_refused_for_others, translate
from ._ownership import Backoff


@define(eq=False)
class Pool:
    """The reading connections of a database."""

    _host: AsyncioHost
    _target: Target
    _rng: Rng
    _idle: deque[Link] = field(factory=lambda: deque[Link](), init=False)
    _room: trio.Semaphore = field(init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        """Make room for as many questions as the settings allow."""
        self._room = trio.Semaphore(self._target.settings.readers_max)

    async def rows(self, statement: str, *values: object) -> list[Row]:
        """Ask, and return the rows.

        Raises:
            StorageUnavailable: the database cannot be reached, or did not answer in time.
            StorageError: it refused, or is closed.
        """
        backoff = Backoff(self._rng, self._target.settings.retry_s)
        while True:
            try:
                return await self._ask(statement, values)
            except DRIVER_ERRORS as error:
                again = is_gone(error) or is_refused_for_others(error)
                if is_gone(error):
                    # They came from the same server; most likely all are gone.
                    self._cut()
                if again and await backoff.pause():
                    continue
                raise translate(error, self._target.name) from error

    async def row(self, statement: str, *values: object) -> Row | None:
        """Ask, and return the first row; raises as `rows` does."""
        rows = await self.rows(statement, *values)
        return rows[0] if rows else None

    async def value(self, statement: str, *values: object) -> Any:
        """Ask, and return the only value; raises as `rows` does."""
        (row,) = await self.rows(statement, *values)
        return row[0]

    async def _ask(self, statement: str, values: tuple[object, ...]) -> list[Row]:
        if self._closed:
            raise StorageError(f"database {self._target.name} is closed; open it again")
        await self._room.acquire()
        handed_over = False
        try:
            link = await self._taken()
            task = self._host.start(link.driver.fetch(statement, *values))
            task.add_done_callback(lambda ended: self._give_back(link, ended))
            handed_over = True
        finally:
            if not handed_over:
                self._room.release()
        settings = self._target.settings
        within_s = settings.statement_timeout_s + settings.reply_margin_s
        with trio.move_on_after(within_s):
            await self._host.wait(task)
        if not task.done():
            link.drop()
            raise NoAnswer(f"database {self._target.name} did not answer within {within_s:g} s")
        return result_of(task)

    async def _taken(self) -> Link:
        while self._idle:
            link = self._idle.pop()
            if link.usable:
                return link
        return await connect(self._host, self._target, "reader")

    def _give_back(self, link: Link, ended: asyncio.Task[list[Row]]) -> None:
        self._room.release()
        if self._closed or ended.cancelled() or (failed(ended) and not link.usable):
            link.drop()
        else:
            self._idle.append(link)

    def _cut(self) -> None:
        while self._idle:
            self._idle.pop().drop()

    async def close(self) -> None:
        """Close the idle connections; those in use are cut when their question is answered."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close()


def failed(task: asyncio.Task[Any]) -> bool:
    """Tell whether a task has ended with an error."""
    return task.exception() is not None

"""The border to asyncio: one event loop for asyncpg, open for as long as the storage is.

The loop runs under Trio (trio-asyncio) in a task that outer cancellation does not reach: a write
that was begun is carried to its end, and only the storage's own closing stops the loop.

Invariant: a coroutine that was given to the loop ends, whatever becomes of its caller, and its
exception is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Final, TypeAlias, TypeVar, cast

import trio
import trio_asyncio
from attrs import define, field

T = TypeVar("T")
_OpeningLoop: TypeAlias = AbstractAsyncContextManager[asyncio.AbstractEventLoop]

LOGGER: Final = logging.getLogger("aiki.storage.postgres")


@define(eq=False)
class AsyncioHost:
    """A running asyncio loop, and a nursery for Trio tasks that live as long as it.

    Attributes:
        nursery: cancelled when the loop is stopped, and by nothing else.
        stopping: set by `stop`.
    """

    nursery: trio.Nursery
    _loop: asyncio.AbstractEventLoop
    stopping: trio.Event = field(factory=trio.Event, init=False)

    def start(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Begin a coroutine of asyncio's."""
        task = self._loop.create_task(coroutine)
        task.add_done_callback(_look_at)
        return task

    async def wait(self, task: asyncio.Task[T]) -> None:
        """Wait until a task has ended, however; leaving earlier leaves it running."""
        if task.done():
            return
        ended = trio.Event()

        def tell(_task: asyncio.Task[T]) -> None:
            ended.set()

        task.add_done_callback(tell)
        try:
            await ended.wait()
        finally:
            task.remove_done_callback(tell)

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, cancelled or not; give it a bound of its own.

        Raises:
            ConnectionAbortedError: the loop was stopped meanwhile.
        """
        task = self.start(coroutine)
        with trio.CancelScope(shield=True):
            await self.wait(task)
        return result_of(task)

    def stop(self) -> None:
        """Let the loop end; the tasks in the nursery are cancelled."""
        self.stopping.set()


def result_of(task: asyncio.Task[T]) -> T:
    """Return what became of a task that has ended.

    Raises:
        ConnectionAbortedError: it was cancelled, as all are when the loop is stopped.
    """
    if task.cancelled():
        raise ConnectionAbortedError("the storage was closed meanwhile")
    return task.result()


def _look_at(task: asyncio.Task[Any]) -> None:
    """Take the exception in, which asyncio would complain of where no one waits any more."""
    if not task.cancelled():
        task.exception()


def _log(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Log what asyncio has to tell; trio-asyncio would end the whole program."""
    LOGGER.warning("asyncio: %s", context.get("message"), exc_info=context.get("exception"))


async def _host(task_status: trio.TaskStatus[AsyncioHost]) -> None:
    # trio-asyncio has no types.
    opening = cast("_OpeningLoop", trio_asyncio.open_loop())  # pyright: ignore[reportUnknownMemberType]
    with trio.CancelScope(shield=True):
        async with opening as loop, trio.open_nursery() as nursery:
            loop.set_exception_handler(_log)
            host = AsyncioHost(nursery, loop)
            task_status.started(host)
            await host.stopping.wait()
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def open_asyncio() -> AsyncGenerator[AsyncioHost, None]:
    """Run an asyncio loop for as long as the block lasts.

    What the block raises is raised as it is, not in the group that a nursery makes of it.
    """
    failure: BaseException | None = None
    async with trio.open_nursery() as nursery:
        host: AsyncioHost = await nursery.start(_host)
        try:
            yield host
        except BaseException as error:  # noqa: BLE001  # raised again below
            failure = error
        finally:
            host.stop()
    if failure is not None:
        raise failure

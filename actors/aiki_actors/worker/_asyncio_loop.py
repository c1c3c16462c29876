"""The asyncio loop for tasks with `runtime="asyncio"`: one per worker, on top of Trio.

It is opened when the first such task comes, by trio-asyncio (the extra `asyncio`), and closed with
the worker. Cancelling the attempt cancels the coroutine; a coroutine that is cancelled by somebody
else in the loop is a failed attempt.
"""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol, TypeVar, cast

import trio
from attrs import define

from aiki_sdk import InvalidRequest

from ._host import StartHost, no_host
from ._slots import RunEvicted

T = TypeVar("T")


class _Loop(Protocol):
    """What is used of trio-asyncio's loop, which comes without types."""

    async def run_aio_coroutine(self, coroutine: Awaitable[T]) -> T:
        """Run a coroutine in the loop, from Trio."""
        ...


@define(eq=False)
class AsyncioLoop:
    """The loop of one worker, opened when it is needed."""

    start_host: StartHost = no_host
    _loop: _Loop | None = None
    _opening: trio.Event | None = None

    async def run(self, function: Callable[[], Awaitable[T]], task: str) -> T:
        """Run what an asyncio function returns, and return or raise what comes of it.

        Raises:
            InvalidRequest: trio-asyncio is not installed.
            RunEvicted: the loop was closed meanwhile.

        """
        loop = await self._open(task)

        async def begin() -> T:
            return await function()

        try:
            return await loop.run_aio_coroutine(begin())
        except trio.Cancelled:
            raise
        except BaseException:
            if self._loop is not loop:
                raise RunEvicted from None
            raise

    async def _open(self, task: str) -> _Loop:
        while self._loop is None:
            if self._opening is None:
                _open_loop(task)
                self._opening = trio.Event()
                self.start_host("asyncio", self._serve)
            await self._opening.wait()
        return self._loop

    async def _serve(self) -> None:
        opened = self._opening
        try:
            async with _open_loop("") as loop:
                self._loop = loop
                if opened is not None:
                    opened.set()
                try:
                    await trio.sleep_forever()
                finally:
                    self._loop = None
        finally:
            self._loop = self._opening = None
            if opened is not None:
                opened.set()


def _open_loop(task: str) -> AbstractAsyncContextManager[_Loop]:
    """Return a loop that is not entered yet; raises `InvalidRequest` without trio-asyncio."""
    try:
        with warnings.catch_warnings():
            # From Python 3.12 on it is warned of a class that trio-asyncio still names.
            warnings.filterwarnings("ignore", ".*ChildWatcher.*", DeprecationWarning)
            import trio_asyncio
    except ModuleNotFoundError as error:
        if error.name != "trio_asyncio":
            raise
        message = (
            f"task {task!r} has runtime='asyncio', which needs trio-asyncio; install the extra: "
            "pip install 'aiki-trio[asyncio]'"
        )
        raise InvalidRequest(message) from error
    # Any: the library comes without types.
    library: Any = trio_asyncio
    return cast("AbstractAsyncContextManager[_Loop]", library.open_loop())

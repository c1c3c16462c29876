"""Connections to one server, a client of httpx for each: what is asked often is asked cheaply.

httpx looks through all connections of a client for each request, twice, and asks the system about
each that is idle. With fifty connections that is a third of a request's time. A client with one
connection has only that to look at. Who frees a connection last is first to be used again, so that
a busy client keeps a few connections warm, and those that nobody needs grow old and are closed.

Invariant: a lane is free or held by one request, never both; after `aclose` there is none.
"""

from collections import deque
from collections.abc import Callable
from typing import Final

import anyio
import httpx
from attrs import define, field

from aiki_sdk.client._waiting import Monotonic, ambient_monotonic

CLOSE_S: Final = 5.0
"""Closing a connection waits for the other side no longer than this."""


@define(eq=False)
class Turns:
    """At most so many requests of one sort at once.

    Who waits for a connection waits here: httpx looks through all that wait in it, for each request
    anew, so that many at once would take their time squared.
    """

    limit: int
    _turns: anyio.Semaphore | None = field(default=None, init=False)

    async def take(self, request: httpx.Request) -> None:
        """Take a turn, to be given back.

        Raises:
            httpx.PoolTimeout: none was free in the time that the request gives its connection.
        """
        if self._turns is None:  # made where a loop runs
            self._turns = anyio.Semaphore(self.limit)
        try:
            self._turns.acquire_nowait()
        except anyio.WouldBlock:
            await self._wait(self._turns, request)

    async def _wait(self, turns: anyio.Semaphore, request: httpx.Request) -> None:
        try:
            with anyio.fail_after(request.extensions["timeout"]["pool"]):
                await turns.acquire()
        except TimeoutError as error:
            message = "every connection is in use"
            raise httpx.PoolTimeout(message, request=request) from error

    def give_back(self) -> None:
        """Give a turn back."""
        assert self._turns is not None, "a turn was taken"
        self._turns.release()


@define(eq=False)
class Lanes:
    """All connections of one exchange.

    Attributes:
        make: makes a client of httpx that keeps one connection.
        idle_max: how many are kept open between requests.
        idle_s: for how many seconds they are.
    """

    make: Callable[[], httpx.AsyncClient]
    idle_max: int
    idle_s: float
    monotonic: Monotonic = ambient_monotonic
    _free: deque[tuple[httpx.AsyncClient, float]] = field(
        factory=lambda: deque[tuple[httpx.AsyncClient, float]](), init=False
    )
    _held: set[httpx.AsyncClient] = field(factory=lambda: set[httpx.AsyncClient](), init=False)
    _closed: bool = field(default=False, init=False)

    @property
    def count(self) -> int:
        """How many there are, free and held."""
        return len(self._free) + len(self._held)

    def hold(self) -> httpx.AsyncClient:
        """Take a lane for one request.

        Raises:
            httpx.CloseError: all were closed.
        """
        if self._closed:
            message = "the client was closed"
            raise httpx.CloseError(message)
        lane = self._free.pop()[0] if self._free else self.make()
        self._held.add(lane)
        return lane

    async def free(self, lane: httpx.AsyncClient) -> None:
        """Give a lane back; closes those that are too many or too old, at most one of either."""
        self._held.discard(lane)
        if self._closed:  # it was closed with all others
            return
        now = self.monotonic()
        self._free.append((lane, now))
        if len(self._free) > self.idle_max or now - self._free[0][1] > self.idle_s:
            await _close(self._free.popleft()[0])

    async def aclose(self) -> None:
        """Close all connections, also those on which something is under way."""
        self._closed = True
        while self._free:
            await _close(self._free.pop()[0])
        while self._held:
            await _close(self._held.pop())


async def _close(lane: httpx.AsyncClient) -> None:
    with anyio.move_on_after(CLOSE_S, shield=True):
        await lane.aclose()

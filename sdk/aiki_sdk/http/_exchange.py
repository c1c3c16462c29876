"""How requests go out and answers come in: over Trio, over asyncio, or in a plain thread.

`AsyncExchange` works under Trio and asyncio alike. `SyncExchange` has the same methods and waits
for nothing but its socket, so that the coroutines above it never suspend and can be stepped through
without a loop. Both count what is waited for apart from the rest, so that it keeps nobody out.
"""

import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Final, Protocol, cast

import anyio
import httpx
from attrs import define, field

from aiki_sdk.http._async_host import in_scope
from aiki_sdk.http._lanes import CLOSE_S, Lanes, Turns
from aiki_sdk.http._settings import HttpSettings

REARM_S: Final = 0.25
"""How late a plain thread may notice that a stream's time is over; or a tenth of that time."""


class Chunks(Protocol):
    """An answer that comes in pieces."""

    response: httpx.Response

    async def next(self, wait_s: float) -> bytes:
        """Return the next piece; empty: that was all.

        Raises:
            TimeoutError: nothing came for `wait_s` seconds; read no more.
            RequestError: the connection was lost; read no more.
        """
        ...

    async def aclose(self) -> None:
        """Close the connection; closing again does nothing."""
        ...


class Exchange(Protocol):
    """What `HttpPort` sends requests with."""

    async def request(self, request: httpx.Request, *, waits: bool) -> httpx.Response:
        """Send a request and return the whole answer.

        Args:
            request: the request.
            waits: whether the server will hold the answer back.

        Raises:
            RequestError: there was no answer.
        """
        ...

    async def open(self, request: httpx.Request) -> Chunks:
        """Send a request and return its answer, to be read in pieces."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        ...

    async def aclose(self) -> None:
        """Close all connections."""
        ...


class Body(httpx.AsyncByteStream, httpx.SyncByteStream):
    """What a request carries, in one piece.

    httpx's own is an async generator, which a cancelled request would leave unfinished.
    """

    def __init__(self, data: bytes) -> None:
        """Keep what is sent."""
        self._data = data

    def __iter__(self) -> Iterator[bytes]:
        yield self._data

    def __aiter__(self) -> AsyncIterator[bytes]:
        return _OnePiece(self._data)


class _OnePiece(AsyncIterator[bytes]):
    def __init__(self, data: bytes) -> None:
        self._left = [data]

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


def _limits(settings: HttpSettings, connections_max: int) -> httpx.Limits:
    return httpx.Limits(
        max_connections=connections_max,
        max_keepalive_connections=min(settings.idle_connections_max, connections_max),
        keepalive_expiry=settings.idle_connection_s,
    )


def _verify(settings: HttpSettings, transport: object) -> bool | ssl.SSLContext:
    """Read the trusted certificates once, for both pools; not where nothing is encrypted here."""
    if settings.verify is True and transport is None:
        return httpx.create_ssl_context()
    return settings.verify


@define(eq=False)
class AsyncExchange:
    """Over Trio or asyncio, whichever runs."""

    _settings: HttpSettings
    _transport: httpx.AsyncBaseTransport | None = None
    _lanes: Lanes = field(init=False)
    _prompt: Turns = field(init=False)
    _waiting: Turns = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings, transport = self._settings, self._transport
        verify, one = _verify(settings, transport), _limits(settings, 1)
        self._lanes = Lanes(
            lambda: httpx.AsyncClient(verify=verify, limits=one, transport=transport),
            settings.idle_connections_max,
            settings.idle_connection_s,
        )
        self._prompt, self._waiting = Turns(settings.connections_max), Turns(settings.waiting_max)

    async def request(self, request: httpx.Request, *, waits: bool) -> httpx.Response:
        """Send a request and return the whole answer."""
        turns = self._waiting if waits else self._prompt
        await turns.take(request)
        try:
            lane = self._lanes.hold()
            try:
                return await in_scope(lambda: lane.send(request))
            finally:
                await self._lanes.free(lane)
        finally:
            turns.give_back()

    async def open(self, request: httpx.Request) -> Chunks:
        """Send a request and return its answer, to be read in pieces."""
        await self._waiting.take(request)
        try:
            lane = self._lanes.hold()
            try:
                answer = await in_scope(
                    lambda: lane.send(request, stream=True), httpx.Response.aclose
                )
            except BaseException:
                await self._lanes.free(lane)
                raise
        except BaseException:
            self._waiting.give_back()
            raise
        return AsyncChunks(answer, lambda: self._read_to_its_end(lane))

    async def _read_to_its_end(self, lane: httpx.AsyncClient) -> None:
        self._waiting.give_back()
        await self._lanes.free(lane)

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        await anyio.sleep(delay_s)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._lanes.aclose()


@define(eq=False)
class AsyncChunks:
    """The pieces of an answer, under Trio or asyncio."""

    response: httpx.Response
    _closed: Callable[[], Awaitable[None]]
    _open: bool = field(default=True, init=False)
    _pieces: AsyncGenerator[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._pieces = cast("AsyncGenerator[bytes]", self.response.aiter_bytes())

    async def next(self, wait_s: float) -> bytes:
        """Return the next piece."""
        with anyio.fail_after(wait_s):
            return await in_scope(self._next)

    async def _next(self) -> bytes:
        return await anext(self._pieces, b"")

    async def aclose(self) -> None:
        """Close the connection."""
        if not self._open:
            return
        self._open = False
        try:
            await in_scope(self._close)
        finally:
            await self._closed()

    async def _close(self) -> None:
        # The pieces pass through generators of httpx that would be left for the garbage collector
        # if they were only dropped. A read that is cancelled ends them all, from the inside out.
        with anyio.CancelScope() as scope:
            scope.cancel()
            with suppress(httpx.RequestError, httpx.StreamError):
                while await anext(self._pieces, b""):
                    continue
        with anyio.move_on_after(CLOSE_S, shield=True):
            await self.response.aclose()


@define(eq=False)
class SyncExchange:
    """In a plain thread; several threads may use it at once."""

    _settings: HttpSettings
    _transport: httpx.BaseTransport | None = None
    _prompt: httpx.Client = field(init=False)
    _waiting: httpx.Client = field(init=False)

    def __attrs_post_init__(self) -> None:
        settings = self._settings
        verify = _verify(settings, self._transport)
        self._prompt, self._waiting = (
            httpx.Client(verify=verify, limits=_limits(settings, count), transport=self._transport)
            for count in (settings.connections_max, settings.waiting_max)
        )

    async def request(self, request: httpx.Request, *, waits: bool) -> httpx.Response:
        """Send a request and return the whole answer."""
        return (self._waiting if waits else self._prompt).send(request)

    async def open(self, request: httpx.Request) -> Chunks:
        """Send a request and return its answer, to be read in pieces."""
        return SyncChunks(self._waiting.send(request, stream=True))

    async def sleep(self, delay_s: float) -> None:
        """Wait."""
        time.sleep(delay_s)  # noqa: ASYNC251  # there is no loop to be blocked

    async def aclose(self) -> None:
        """Close all connections."""
        self._prompt.close()
        self._waiting.close()


@define(eq=False)
class SyncChunks:
    """The pieces of an answer, in a plain thread.

    A socket's timeout is set once, with the request, and counts from the last piece. When much less
    time than at the first read is left, the stream has to be opened again for what is left.
    """

    response: httpx.Response
    _pieces: Iterator[bytes] = field(init=False)
    _first_wait_s: float | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._pieces = self.response.iter_bytes()

    async def next(self, wait_s: float) -> bytes:
        """Return the next piece."""
        if self._first_wait_s is None:
            self._first_wait_s = wait_s
        elif self._first_wait_s - wait_s > max(REARM_S, self._first_wait_s / 10):
            message = "the stream was opened for longer than is left"
            raise TimeoutError(message)
        try:
            return next(self._pieces, b"")
        except httpx.ReadTimeout as error:
            message = "nothing came in time"
            raise TimeoutError(message) from error

    async def aclose(self) -> None:
        """Close the connection."""
        self.response.close()

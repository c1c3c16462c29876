"""One client's connection: Hypercorn's protocol on a Trio socket, with an end to every wait.

Hypercorn's own connection shields what it sends from cancellation and gives it no time limit, so
that a client which never reads holds up the request, and a stop, for ever; and an exception in one
connection ends the server. Here every write has a deadline, a broken connection ends everything
that it had started and nothing else, and `abort` ends it at any time.

Invariant: when `run` returns, no task of the connection is left and its socket is closed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Final, Self

import trio
from attrs import define, field
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData, Updated
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ASGISendEvent,
    Scope,
    TaskGroup as TaskGroupProtocol,
)

from ._http11 import Http11
from ._settings import GatewaySettings

LOGGER: Final = logging.getLogger("aiki.gateway")

RECEIVE_BYTES: Final = 64 * 1024
SEND_BYTES: Final = 64 * 1024
"""What has to be taken within the time limit of one write."""

LAST_LOOK_S: Final = 0.01
"""What a client that was waited for too long has left, if this server was too busy to look."""

LINGER_S: Final = 1.0
"""How long what a client sends after our last word is read and dropped: closed with unread bytes, a
connection is reset, and the client would never see that word."""


async def _nothing(*_args: object) -> None:
    """Take the place of the callables that only WSGI applications use."""


@define(eq=False)
class _Tasks:
    """The tasks of a connection, as Hypercorn's protocols start them.

    Requests are waited for when the client has gone; what serves them, such as pings, is not.
    """

    nursery: trio.Nursery
    _running: int = field(default=0, init=False)
    _idle: trio.Event | None = field(default=None, init=False)

    async def spawn_app(
        self,
        app: AppWrapper,
        config: Config,
        scope: Scope,
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> Callable[[ASGIReceiveEvent], Awaitable[None]]:
        """Serve one request; return what gives it the client's messages."""
        put, take = trio.open_memory_channel[ASGIReceiveEvent](config.max_app_queue_size)
        self._running += 1
        self.nursery.start_soon(self._run, app, scope, take, send)
        return put.send

    async def _run(
        self,
        app: AppWrapper,
        scope: Scope,
        take: trio.MemoryReceiveChannel[ASGIReceiveEvent],
        send: Callable[[ASGISendEvent | None], Awaitable[None]],
    ) -> None:
        try:
            try:
                await app(scope, take.receive, send, _nothing, _nothing)
            except Exception:
                LOGGER.exception("a request was not answered because of a bug")
            await send(None)
        finally:
            self._running -= 1
            if not self._running and self._idle is not None:
                self._idle.set()

    def spawn(self, func: Callable[..., Awaitable[object]], *args: object) -> None:
        """Run something for as long as the connection lasts."""
        self.nursery.start_soon(func, *args)

    async def requests_ended(self) -> None:
        """Wait until every request has ended."""
        if self._running:
            self._idle = trio.Event()
            await self._idle.wait()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Nothing: the connection owns the nursery."""


@define(eq=False)
class Connection:
    """One connection; `run` serves it to its end."""

    _app: AppWrapper
    _config: Config
    _context: WorkerContext
    _settings: GatewaySettings
    _stream: trio.SocketStream
    idle: bool = field(default=True, init=False)
    _leaving: bool = field(default=False, init=False)
    _reading: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _waiting: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _patient_until: float = field(default=math.inf, init=False)
    _looked_after: float = field(default=-math.inf, init=False)
    _writing: trio.CancelScope = field(factory=trio.CancelScope, init=False)
    _sending: trio.Lock = field(factory=trio.Lock, init=False)
    _closed: bool = field(default=False, init=False)
    _protocol: Http11 = field(init=False)
    _everything: trio.CancelScope = field(factory=trio.CancelScope, init=False)

    async def run(self) -> None:
        """Serve the connection until one side closes it, or this is cancelled."""
        try:
            address = self._stream.socket.getpeername()
            async with trio.open_nursery() as nursery:
                self._everything = nursery.cancel_scope
                tasks = _Tasks(nursery)
                group: TaskGroupProtocol = tasks
                self._protocol = Http11(
                    self._app,
                    self._config,
                    self._context,
                    group,
                    (str(address[0]), int(address[1])),
                    None,
                    self._handle_event,
                )
                await self._read()
                with trio.move_on_after(self._settings.response_timeout_s):
                    await self._protocol.handle(Closed())
                    await tasks.requests_ended()
                nursery.cancel_scope.cancel()
        except OSError:
            # It broke before anything was asked: there is nobody to tell.
            return
        finally:
            self._closed = True
            await trio.aclose_forcefully(self._stream)

    def end_if_idle(self) -> None:
        """Close the connection if no request is being answered on it."""
        if self.idle:
            self._leaving = True
            self._waiting.cancel()

    def abort(self) -> None:
        """End the connection and all that it had started at once."""
        self._everything.cancel()
        self._writing.cancel()

    async def _read(self) -> None:
        self._patient_until = trio.current_time() + self._settings.header_timeout_s
        with self._reading:
            while not (self._leaving and self.idle):
                data = await self._receive()
                if not data:
                    return
                if not self._closed:
                    await self._protocol.handle(RawData(bytes(data)))

    async def _receive(self) -> bytes | bytearray:
        """Wait for what the client says; nothing: it has gone, or was waited for long enough.

        Only the wait is limited, so that what has come is handled whole, however late this server
        comes to it.
        """
        try:
            with trio.CancelScope(deadline=self._patient_until) as self._waiting:
                return await self._stream.receive_some(RECEIVE_BYTES)
            # A server that was busy may have let the time pass while the data was there already.
            if not self._leaving and self._looked_after != self._patient_until:
                self._looked_after = self._patient_until
                with trio.move_on_after(LAST_LOOK_S):
                    return await self._stream.receive_some(RECEIVE_BYTES)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
        return b""

    def _wait_until(self, deadline: float) -> None:
        self._patient_until = self._waiting.deadline = deadline

    async def _handle_event(self, event: Event) -> None:
        match event:
            case RawData(data=data):
                await self._send(data)
            case Updated(idle=idle):
                self.idle = idle
                pause = self._settings.keep_alive_s if idle else math.inf
                self._wait_until(trio.current_time() + pause)
                if idle and self._leaving:
                    self._waiting.cancel()
            case Closed():
                await self._close()
            case _:
                message = f"Hypercorn has no such event: {event!r}"
                raise AssertionError(message)

    async def _send(self, data: bytes) -> None:
        """Send data whole, also when whoever sends it is cancelled; `abort` ends it."""
        async with self._sending:
            if self._closed:
                return
            sent = False
            try:
                for start in range(0, len(data), SEND_BYTES):
                    if start:  # what is long must not hold its sender for as long as it likes
                        await trio.lowlevel.checkpoint_if_cancelled()
                    deadline = trio.current_time() + self._settings.send_timeout_s
                    with trio.CancelScope(shield=True, deadline=deadline) as self._writing:
                        await self._stream.send_all(data[start : start + SEND_BYTES])
                    if self._writing.cancelled_caught:
                        break
                else:
                    sent = True
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The client has gone; what it asked for goes with it, below.
                pass
            finally:
                if not sent:  # half of a message may be out
                    self._closed = True
                    self._everything.cancel()

    async def _close(self) -> None:
        """Say that nothing more comes, and let the reader see what the client still says."""
        if self._closed:
            return
        self._closed = True
        linger_s = LINGER_S if self._protocol.mid_request else 0.0
        try:
            await self._stream.send_eof()
            await self._protocol.handle(Closed())
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.BusyResourceError):
            linger_s = 0.0
        finally:  # also when cancelled: nobody else would end the reader
            self._reading.deadline = trio.current_time() + linger_s

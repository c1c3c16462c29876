"""The gateway actor: the listening socket, the connections, and an end that comes in time.

    gateway
    ├─ accept      takes connections, at most so many
    └─ connection  one task per connection, and what it started

A stop goes: no new connections; streams and long polls are told to end; requests in work may
finish for `stop_grace_s`; what is left is cut off. No client can make that longer.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Callable
from typing import ClassVar, Final, Never

import trio
from attrs import define, field
from hypercorn.app_wrappers import ASGIWrapper
from hypercorn.config import Config
from hypercorn.trio.worker_context import WorkerContext
from typing_extensions import override

from aiki_actors.kernel import Actor, ActorContext

from ._app import make_app
from ._connection import Connection
from ._engine import Engine
from ._gate import Gate
from ._guard import Guard, check_open
from ._metrics import Metrics
from ._rate import RateLimiter
from ._routes import Router
from ._settings import GatewaySettings
from ._table import ROUTES

LOGGER: Final = logging.getLogger("aiki.gateway")

ACCEPT_PAUSE_S: Final = 0.1
"""After the system had no file descriptor left: one may have been given back by then."""

_NO_ROOM: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS)

Address = tuple[str, int]


def listen(host: str, port: int, settings: GatewaySettings) -> socket.socket:
    """Return a listening socket; port 0 lets the system choose.

    Raises:
        InvalidRequest: others than this machine could connect, and there are no keys.
        OSError: the address cannot be had.
    """
    check_open(host, settings)
    found = socket.getaddrinfo(
        host.strip("[]"), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    family, kind, protocol, _, address = found[0]
    listener = socket.socket(family, kind, protocol)
    try:
        if os.name != "nt":  # there it would let two programs listen on one port
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # What a client does not acknowledge in this time, it never will. Connections inherit it.
        option: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)
        if option is not None:
            timeout_ms = round(settings.tcp_user_timeout_s * 1000)
            listener.setsockopt(socket.IPPROTO_TCP, option, timeout_ms)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(settings.backlog)
        listener.setblocking(False)
    except BaseException:
        listener.close()
        raise
    return listener


def address_of(listener: socket.socket) -> Address:
    """Return where a socket listens."""
    name = listener.getsockname()
    return str(name[0]), int(name[1])


def make_gate(engine: Engine, settings: GatewaySettings) -> Gate:
    """Put together what answers requests."""
    return Gate(
        engine,
        settings,
        Router(ROUTES),
        Guard(settings),
        Metrics(),
        RateLimiter(settings.requests_per_s, settings.requests_burst, settings.addresses_max),
    )


def _hypercorn_config(settings: GatewaySettings) -> Config:
    config = Config()
    config.errorlog = None
    config.accesslog = None
    config.include_server_header = False
    config.h11_max_incomplete_size = settings.header_bytes_max
    config.keep_alive_max_requests = 1_000_000
    config.websocket_max_message_size = settings.websocket_message_bytes_max
    config.websocket_ping_interval = settings.ping_s
    return config


@define(eq=False)
class GatewayActor(Actor[Never]):
    """Serves HTTP and websockets on a socket that listens already."""

    kind: ClassVar[str] = "gateway"
    listener_of: Callable[[], socket.socket]
    gate: Gate
    serving: trio.Event
    _address: str = field(default="", init=False)
    _stop: trio.Event = field(factory=trio.Event, init=False)
    _drained: trio.Event = field(factory=trio.Event, init=False)
    _open: dict[Connection, None] = field(factory=lambda: dict[Connection, None](), init=False)

    @override
    async def started(self, context: ActorContext[Never]) -> None:
        listener = trio.SocketListener(trio.socket.from_stdlib_socket(self.listener_of()))
        host, port = listener.socket.getsockname()[:2]
        self._address = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self.gate.closing = trio.Event()
        context.start_soon(self._serve, listener)
        context.start_soon(self._notice_stop)
        self.serving.set()

    @override
    def describe(self) -> str:
        metrics = self.gate.metrics
        answered = sum(metrics.requests.values())
        return f"{self._address}, {answered} answered, {len(self._open)} connections"

    async def _notice_stop(self) -> None:
        """Learn of the stop at once: this task is cancelled, while the serving one is shielded."""
        try:
            await trio.sleep_forever()
        finally:
            self._stop.set()

    async def _serve(self, listener: trio.SocketListener) -> None:
        grace_s = self.gate.settings.stop_grace_s
        app = ASGIWrapper(make_app(self.gate))
        config = _hypercorn_config(self.gate.settings)
        worker = WorkerContext(None)
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as connections:
                accepting = trio.CancelScope()

                def connect(stream: trio.SocketStream) -> Connection:
                    return Connection(app, config, worker, self.gate.settings, stream)

                connections.start_soon(self._accept, listener, accepting, connections, connect)
                await self._stop.wait()
                accepting.cancel()
                self.gate.closing.set()
                await worker.terminated.set()
                for connection in list(self._open):
                    connection.end_if_idle()
                with trio.move_on_after(grace_s):
                    if self._open:
                        await self._drained.wait()
                for connection in list(self._open):
                    connection.abort()
                connections.cancel_scope.cancel()

    async def _accept(
        self,
        listener: trio.SocketListener,
        accepting: trio.CancelScope,
        connections: trio.Nursery,
        connect: Callable[[trio.SocketStream], Connection],
    ) -> None:
        room = trio.Semaphore(self.gate.settings.connections_max)
        with accepting:
            async with listener:
                while True:
                    self._make_room(room)
                    await room.acquire()
                    try:
                        stream = await listener.accept()
                    except OSError as error:
                        if error.errno not in _NO_ROOM:
                            raise
                        LOGGER.warning("no connection can be accepted: %s", error)
                        await trio.sleep(ACCEPT_PAUSE_S)
                        room.release()
                    else:
                        connections.start_soon(self._converse, connect(stream), room)

    def _make_room(self, room: trio.Semaphore) -> None:
        """Close the connection that was opened first of those on which nothing is asked.

        Who only holds connections open does not keep others out.
        """
        if room.value == 0:
            for connection in self._open:
                if connection.idle:
                    connection.end_if_idle()
                    return

    async def _converse(self, connection: Connection, room: trio.Semaphore) -> None:
        """Serve one connection; whatever happens in it, the others go on."""
        metrics = self.gate.metrics
        metrics.connections += 1
        metrics.connections_total += 1
        self._open[connection] = None
        try:
            await connection.run()
        except Exception:
            LOGGER.exception("a connection ended because of a bug")
        finally:
            del self._open[connection]
            if self._stop.is_set() and not self._open:
                self._drained.set()
            metrics.connections -= 1
            room.release()

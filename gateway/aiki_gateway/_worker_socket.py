"""`WS /v1/worker`: a worker's session, carried over one of Quart's websockets.

The engine knows what is said; this module moves frames. Quart bounds what waits to be read, the
session's link bounds what waits to be sent, and whoever reaches a bound loses the connection with a
code and a reason, from which the worker comes back.
"""

from __future__ import annotations

from typing import Final, Protocol

import trio
from attrs import define, field

from aiki_actors.session import SessionLimits, close_reason, receive_worker

from ._engine import Engine
from ._live_socket import GOING_AWAY, cancel_after

_LIMITS: Final = SessionLimits()


class Socket(Protocol):
    """What is used of Quart's websocket."""

    async def accept(self) -> None:
        """Say yes to the client."""
        ...

    async def send(self, data: bytes) -> None:
        """Send a message."""
        ...

    async def receive(self) -> str | bytes:
        """Wait for a message."""
        ...

    async def close(self, code: int, reason: str = "") -> None:
        """Close it."""
        ...


@define(eq=False)
class SocketTransport:
    """A Quart websocket as a session's transport; when it breaks, Quart cancels its task."""

    _socket: Socket
    closed: bool = field(default=False, init=False)

    async def send(self, frame: bytes) -> None:
        """Send a frame, as a binary message."""
        await self._socket.send(frame)

    async def receive(self) -> bytes:
        """Wait for a frame."""
        message = await self._socket.receive()
        return message.encode() if isinstance(message, str) else message

    async def close(self, code: int, reason: str) -> None:
        """Close the websocket with a code and a reason."""
        self.closed = True
        await self._socket.close(int(code), close_reason(reason))


async def serve_worker(engine: Engine, websocket: Socket, closing: trio.Event) -> None:
    """Serve a worker's websocket until either side closes it, or the gateway is closing."""
    await websocket.accept()
    transport = SocketTransport(websocket)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(cancel_after, closing, nursery.cancel_scope)
        await receive_worker(engine.accept_worker, transport, _LIMITS.hello_s)
        nursery.cancel_scope.cancel()
    if not transport.closed:  # else the session knew of the stop before the gateway did
        await transport.close(GOING_AWAY, "the server is stopping; come back")

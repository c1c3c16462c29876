"""`WS /v1/worker`: a worker's session, carried over one of Quart's websockets.

The engine knows what is said; this module moves frames. Quart bounds what waits to be read, the
session's link bounds what waits to be sent, and whoever reaches a bound loses the connection with a
code and a reason, from which the worker comes back.
"""

from __future__ import annotations

from typing import Final, Protocol

from attrs import define

from aiki_actors.session import SessionLimits, close_reason, receive_worker

from ._engine import Engine

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

    async def send(self, frame: bytes) -> None:
        """Send a frame, as a binary message."""
        await self._socket.send(frame)

    async def receive(self) -> bytes:
        """Wait for a frame."""
        message = await self._socket.receive()
        return message.encode() if isinstance(message, str) else message

    async def close(self, code: int, reason: str) -> None:
        """Close the websocket with a code and a reason."""
        await self._socket.close(int(code), close_reason(reason))


async def serve_worker(engine: Engine, websocket: Socket) -> None:
    """Serve a worker's websocket until either side closes it, or the gateway stops."""
    await websocket.accept()
    await receive_worker(engine.accept_worker, SocketTransport(websocket), _LIMITS.hello_s)

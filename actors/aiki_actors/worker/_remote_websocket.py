"""The worker's websocket: `trio-websocket` as a session's transport.

Invariant: whatever goes wrong with the network leaves here as `SessionClosed` with a reason, never
as an exception of a library.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Final
from urllib.parse import urlsplit, urlunsplit

import trio
import trio_websocket
from attrs import define

from aiki_actors.session import (
    FRAME_BYTES_MAX,
    CloseCode,
    ProtocolError,
    SessionClosed,
    Transport,
    close_reason,
)
from aiki_sdk import InvalidRequest

PATH: Final = "/v1/worker"
CONNECT_S: Final = 5.0
DISCONNECT_S: Final = 2.0
RECEIVE_BYTES: Final = 64 * 1024
UNAUTHORIZED: Final = (401, 403)
OWN_CODES: Final = 3000
"""From here on close codes may be sent freely; most below tell of what nobody has sent."""

_SCHEMES: Final = {"http": "ws", "https": "wss", "ws": "ws", "wss": "wss"}


def websocket_url(url: str) -> str:
    """Return the address of a server's worker sessions.

    Raises:
        InvalidRequest: it is not the address of a server.

    """
    parts = urlsplit(url)
    if parts.scheme not in _SCHEMES or not parts.netloc:
        message = f"url={url!r} is not valid: pass a server's, such as 'http://localhost:9850'"
        raise InvalidRequest(message)
    path = parts.path.rstrip("/") + PATH
    return urlunsplit((_SCHEMES[parts.scheme], parts.netloc, path, "", ""))


@define(eq=False)
class WebsocketTransport:
    """Frames as binary messages."""

    _connection: trio_websocket.WebSocketConnection

    async def send(self, frame: bytes) -> None:
        """Send a frame."""
        try:
            await self._connection.send_message(frame)
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from closed
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _broken(error) from error

    async def receive(self) -> bytes:
        """Wait for a frame."""
        try:
            message = await self._connection.get_message()
        except trio_websocket.ConnectionClosed as closed:
            raise _closed(closed) from closed
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _broken(error) from error
        return message if isinstance(message, bytes) else message.encode()

    async def close(self, code: int, reason: str) -> None:
        """Close the socket."""
        try:
            sendable = code in {CloseCode.NORMAL, CloseCode.GOING_AWAY} or code >= OWN_CODES
            told = code if sendable else CloseCode.GOING_AWAY
            await self._connection.aclose(int(told), close_reason(reason))
        except (OSError, trio.BrokenResourceError, trio.ClosedResourceError):
            return  # it is closed, which is what was wanted


def _closed(closed: trio_websocket.ConnectionClosed) -> SessionClosed:
    if closed.reason is None:
        return SessionClosed(CloseCode.GOING_AWAY, "the socket was closed")
    return SessionClosed(closed.reason.code, closed.reason.reason or closed.reason.name)


def _broken(error: Exception) -> SessionClosed:
    return SessionClosed(CloseCode.GOING_AWAY, f"the socket broke: {error!r}")


def dial_websocket(
    url: str, headers: Sequence[tuple[str, str]] = (), tls: ssl.SSLContext | None = None
) -> AbstractAsyncContextManager[Transport]:
    """Open a websocket to a server's worker sessions.

    Args:
        url: the server's, as clients have it.
        headers: sent with the handshake (key, namespace).
        tls: how its certificate is checked; None: by the machine's authorities.

    Raises:
        InvalidRequest: it is not the address of a server.

    """
    return _dial(websocket_url(url), headers, tls)


@asynccontextmanager
async def _dial(
    address: str, headers: Sequence[tuple[str, str]], tls: ssl.SSLContext | None
) -> AsyncGenerator[Transport]:
    """Open the websocket for as long as the block lasts.

    Raises:
        SessionClosed: the server cannot be reached, or refuses.

    """
    encoded = [(name.encode(), value.encode()) for name, value in headers]
    # Raised behind the nursery, which would make a group of it.
    failure: SessionClosed | None = None
    async with trio.open_nursery() as nursery:
        try:
            with trio.fail_after(CONNECT_S):
                connection = await trio_websocket.connect_websocket_url(
                    nursery,
                    address,
                    ssl_context=tls,
                    extra_headers=encoded,
                    max_message_size=FRAME_BYTES_MAX,
                    receive_buffer_size=RECEIVE_BYTES,
                )
            transport = WebsocketTransport(connection)
            try:
                yield transport
            finally:
                with trio.move_on_after(DISCONNECT_S, shield=True):
                    await transport.close(CloseCode.NORMAL, "")
                # The library closes the socket when the other side has; nobody waits for that here.
                stream = connection._stream  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
                await trio.aclose_forcefully(stream)
        except (OSError, trio_websocket.HandshakeError, trio.TooSlowError) as error:
            failure = _unreachable(address, error)
            failure.__cause__ = error
        except SessionClosed as closed:
            failure = closed
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


def _unreachable(address: str, error: Exception) -> SessionClosed:
    if not isinstance(error, trio_websocket.ConnectionRejected):
        return SessionClosed(CloseCode.GOING_AWAY, f"{address} cannot be reached: {error!r}")
    answer = f"{address} answered {error.status_code}"
    if error.status_code in UNAUTHORIZED:
        return ProtocolError(CloseCode.UNAUTHORIZED, answer)
    return SessionClosed(CloseCode.GOING_AWAY, f"{answer} instead of opening a websocket")

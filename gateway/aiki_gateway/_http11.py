"""Hypercorn's HTTP/1.1 and websocket protocols, with the gaps closed that the open network finds.

What is different from Hypercorn's own, and why:

* HTTP/1.1 only: an upgrade to HTTP/2 in clear text is ignored, not obeyed.
* Headers over the limit are refused also when they come in one piece.
* A request with both a length and chunks is refused: two readers would see two requests in it.
* Compression of websockets is never agreed to: a few bytes would become a thousand times as many.
* A websocket that breaks the protocol, or sends too much, is closed with the reason, and nothing
  more is read from it. Hypercorn goes on to collect what comes.
* A response's head is sent together with the first part of its body.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

import h11
from hypercorn.config import Config
from hypercorn.events import Closed, Event, RawData
from hypercorn.protocol.events import Body, Data, Event as StreamEvent, Request, StreamClosed
from hypercorn.protocol.h11 import STREAM_ID, H11Protocol, H11WSConnection
from hypercorn.protocol.http_stream import HTTPStream
from hypercorn.protocol.ws_stream import WSStream
from hypercorn.typing import (
    AppWrapper,
    ASGIReceiveEvent,
    ConnectionState as State,
    H11SendableEvent,
    TaskGroup,
    WorkerContext,
)
from typing_extensions import override
from wsproto.connection import ConnectionState
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import LocalProtocolError

_SILENT: Final = (h11.IDLE, h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
_HEADER_EXTRA: Final = 4
"""Colon, blank and line end."""
_FRAMING: Final = (b"content-length", b"transfer-encoding")


class Http11(H11Protocol):
    """One connection's protocol."""

    def __init__(
        self,
        app: AppWrapper,
        config: Config,
        context: WorkerContext,
        task_group: TaskGroup,
        client: tuple[str, int] | None,
        server: tuple[str, int] | None,
        send: Callable[[Event], Awaitable[None]],
    ) -> None:
        """Make the protocol of a connection that is not encrypted."""
        super().__init__(app, config, context, task_group, State({}), False, client, server, send)
        self._held = b""

    @property
    def mid_request(self) -> bool:
        """Whether the client may be sending something that nobody will read."""
        return self.connection.their_state not in _SILENT

    @override
    async def _check_protocol(self, event: h11.Request) -> None:
        """Stay with HTTP/1.1, whatever the client proposes."""

    @override
    async def _create_stream(self, request: h11.Request) -> None:
        names = {name for name, _ in request.headers}
        size = len(request.target) + sum(
            len(name) + len(value) + _HEADER_EXTRA for name, value in request.headers
        )
        status = 400 if names.issuperset(_FRAMING) else 431
        if status == 400 or size > self.config.h11_max_incomplete_size:
            await self._send_error_response(status)
            await self.send(Closed())
            return
        connection = self.connection
        if isinstance(connection, h11.Connection) and _wants_websocket(request):
            self.stream = self._websocket_stream()
            self.connection = H11WSConnection(connection)
        else:
            self.stream = self._http_stream()
        await self.stream.handle(
            Request(
                stream_id=STREAM_ID,
                headers=[
                    (name, value)
                    for name, value in request.headers
                    if name != b"sec-websocket-extensions"
                ],
                http_version=request.http_version.decode(),
                method=request.method.decode("ascii").upper(),
                raw_path=request.target,
                state=self.connection_state,
            )
        )
        self.keep_alive_requests += 1

    def _http_stream(self) -> HTTPStream:
        return HTTPStream(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )

    def _websocket_stream(self) -> WSStream:
        stream = Websocket(
            self.app,
            self.config,
            self.context,
            self.task_group,
            self.ssl,
            self.client,
            self.server,
            self.stream_send,
            STREAM_ID,
        )
        stream.parts = []
        return stream

    @override
    async def _send_h11_event(self, event: H11SendableEvent) -> None:
        try:
            data = self.connection.send(event) or b""
        except h11.LocalProtocolError:
            if self.connection.their_state != h11.ERROR:
                raise
            return
        if isinstance(event, h11.Response):
            self._held += data
            return
        data, self._held = self._held + data, b""
        if data:
            await self.send(RawData(data=data))


def _wants_websocket(request: h11.Request) -> bool:
    headers = dict(request.headers)
    tokens = headers.get(b"connection", b"").lower().split(b",")
    return (
        request.method == b"GET"
        and headers.get(b"upgrade", b"").strip().lower() == b"websocket"
        and any(token.strip() == b"upgrade" for token in tokens)
    )


class Websocket(WSStream):
    """One websocket's protocol."""

    app_put: Callable[[ASGIReceiveEvent], Awaitable[None]] | None
    parts: list[bytes]
    """What has come of a message so far."""
    part_bytes: int = 0

    @override
    async def handle(self, event: StreamEvent) -> None:
        if self.closed:
            return
        if isinstance(event, Body | Data) and not self.handshake.accepted:
            await self._refuse_early()
            return
        try:
            await super().handle(event)
        except LocalProtocolError:
            # It was closed in both directions, and the client sends on.
            await self._end()
        if isinstance(event, Request) and self.app_put is None:  # the handshake was none
            await self._end()

    async def _refuse_early(self) -> None:
        """Refuse a client that speaks before it knows whether it was accepted."""
        self.closed = True  # first: the application may be accepting it right now
        if self.app_put is not None:
            code = CloseReason.ABNORMAL_CLOSURE.value
            await self.app_put({"type": "websocket.disconnect", "code": code})
        await self._send_error_response(400)
        await self._end()

    @override
    async def _handle_events(self) -> None:
        for event in self.connection.events():
            if isinstance(event, TextMessage | BytesMessage):
                if not await self._take(event):
                    return
            elif isinstance(event, Ping):
                await self._send_wsproto_event(event.response())
            elif isinstance(event, CloseConnection):
                if self.connection.state is ConnectionState.REMOTE_CLOSING:
                    await self._send_wsproto_event(event.response())
                else:  # the client broke the protocol, or answers our own close
                    await self._send_wsproto_event(CloseConnection(code=event.code))
                await self._end()
                return

    async def _take(self, event: TextMessage | BytesMessage) -> bool:
        """Collect a message; False: it is too long, and the websocket is closed."""
        parts = self.parts
        parts.append(event.data.encode() if isinstance(event, TextMessage) else bytes(event.data))
        self.part_bytes += len(parts[-1])
        if self.part_bytes > self.config.websocket_max_message_size:
            parts.clear()
            await self._send_wsproto_event(CloseConnection(code=CloseReason.MESSAGE_TOO_BIG))
            await self._end()
            return False
        if event.message_finished:
            data = b"".join(parts)
            parts.clear()
            self.part_bytes = 0
            # Of an empty message of bytes, Quart would make None.
            binary = isinstance(event, BytesMessage) and data
            if self.app_put is not None:
                await self.app_put(
                    {
                        "type": "websocket.receive",
                        "bytes": data if binary else None,
                        "text": None if binary else data.decode(),
                    }
                )
        return True

    async def _end(self) -> None:
        await self.send(StreamClosed(stream_id=self.stream_id))

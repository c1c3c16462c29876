"""A websocket client of a few lines: it can say what a proper one never would."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import trio
from attrs import define, field
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    RejectConnection,
    RejectData,
    Request,
    TextMessage,
)

from aiki_gateway import Bound


class Closed(Exception):
    """The server closed the websocket; `code` is what it said, 1006 if it said nothing."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(f"{code} {reason}")
        self.code = code


class Rejected(Exception):
    """The server did not accept the websocket."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(f"{status} {body!r}")
        self.status = status


@define(eq=False)
class Socket:
    """One websocket."""

    stream: trio.SocketStream
    protocol: WSConnection
    texts: list[str] = field(factory=lambda: list[str]())
    part: str = ""
    pongs: int = 0

    async def say(self, message: str | bytes | None = None, **members: object) -> None:
        """Send a message: as it is, or an object made of members."""
        if message is None:
            message = json.dumps({name.rstrip("_"): value for name, value in members.items()})
        event = TextMessage(message) if isinstance(message, str) else BytesMessage(message)
        await self.stream.send_all(self.protocol.send(event))

    async def hear(self) -> Any:
        """Return the next message, read as JSON; raises `Closed` if there is none."""
        with trio.fail_after(10):
            while not self.texts:
                await self._read()
        return json.loads(self.texts.pop(0))

    async def update(self) -> Any:
        """Return the next update that a journal keeps."""
        while (message := await self.hear())["type"] != "update" or message["update"]["live"]:
            assert message["type"] == "update", message
        return message

    async def closed(self) -> int:
        """Read until the server closes, and return the code."""
        try:
            while True:
                await self.hear()
        except Closed as closed:
            return closed.code

    async def _read(self) -> None:
        try:
            data = await self.stream.receive_some(65_536)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise Closed(1006)
        self.protocol.receive_data(data)
        await self._take()

    async def _take(self) -> None:
        for event in self.protocol.events():
            match event:
                case TextMessage():
                    self.part += event.data
                    if event.message_finished:
                        self.texts.append(self.part)
                        self.part = ""
                case Ping():
                    await self.stream.send_all(self.protocol.send(event.response()))
                case CloseConnection():
                    raise Closed(event.code, event.reason or "")
                case Pong():
                    self.pongs += 1
                case RejectData():
                    raise Rejected(0, bytes(event.data))
                case RejectConnection():
                    raise Rejected(event.status_code, b"")
                case _:
                    assert isinstance(event, AcceptConnection), event


@asynccontextmanager
async def websocket(bound: Bound, path: str = "/v1/stream") -> AsyncGenerator[Socket, None]:
    """Open a websocket; raises `Rejected` if the server will not have it."""
    with trio.fail_after(10):
        stream = await trio.open_tcp_stream(bound.host, bound.port)
    async with stream:
        socket = Socket(stream, WSConnection(ConnectionType.CLIENT))
        request = Request(host="localhost", target=path)
        await stream.send_all(socket.protocol.send(request))
        with trio.fail_after(10):
            while socket.protocol.state.name == "CONNECTING":
                await socket._read()
        yield socket

"""A reader of server-sent events that leaves nothing behind when it is dropped half-way."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import h11
import trio
from attrs import define, field, frozen

from aiki_gateway import Bound


@frozen
class Sse:
    """One server-sent event."""

    kind: str
    id: str
    data: Any


@define(eq=False)
class Events:
    """The events of one answer; comments are counted, and what no journal keeps is left out."""

    stream: trio.SocketStream
    protocol: h11.Connection
    comments: int = 0
    _rest: str = field(default="", init=False)

    async def next(self) -> Sse | None:
        """Return the next event; None at the end of the answer."""
        with trio.fail_after(10):
            while True:
                block, found, rest = self._rest.partition("\n\n")
                if not found:
                    data = await self.chunk()
                    if data is None:
                        return None
                    self._rest += data
                    continue
                self._rest = rest
                if block.startswith(":"):
                    self.comments += 1
                    continue
                fields = dict(line.split(": ", 1) for line in block.split("\n"))
                data = json.loads(fields["data"])
                if not data.get("live"):
                    return Sse(fields["event"], fields.get("id", ""), data)

    async def take(self, count: int) -> list[Sse]:
        """Return the next so many events."""
        taken: list[Sse] = []
        while len(taken) < count:
            event = await self.next()
            assert event is not None, f"the stream ended after {taken}"
            taken.append(event)
        return taken

    @property
    def unread(self) -> str:
        """What came with the events that were read, and was not read."""
        return self._rest

    async def until_end(self) -> list[Sse]:
        """Return all events, to the end of the answer."""
        taken: list[Sse] = []
        while (event := await self.next()) is not None:
            taken.append(event)
        return taken

    async def chunk(self) -> str | None:
        """Return a part of the body; None at its end."""
        while True:
            event = self.protocol.next_event()
            if isinstance(event, h11.Data):
                return event.data.decode()
            if isinstance(event, h11.EndOfMessage):
                return None
            if event is h11.NEED_DATA:
                self.protocol.receive_data(await self.stream.receive_some(65_536))


@asynccontextmanager
async def events_of(
    bound: Bound, path: str, last_event_id: str = ""
) -> AsyncGenerator[Events, None]:
    """Open a stream of events."""
    stream = await trio.open_tcp_stream(bound.host, bound.port)
    async with stream:
        protocol = h11.Connection(h11.CLIENT)
        headers = [("Host", "localhost")]
        if last_event_id:
            headers.append(("Last-Event-ID", last_event_id))
        await stream.send_all(
            protocol.send(h11.Request(method="GET", target=path, headers=headers))
        )
        protocol.send(h11.EndOfMessage())
        with trio.fail_after(10):
            while (answer := protocol.next_event()) is h11.NEED_DATA:
                protocol.receive_data(await stream.receive_some(65_536))
        assert isinstance(answer, h11.Response)
        assert answer.status_code == 200
        assert (b"content-type", b"text/event-stream") in list(answer.headers)
        yield Events(stream, protocol)

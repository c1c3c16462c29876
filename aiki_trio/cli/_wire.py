"""What goes over the control socket: one line of JSON each way, made of the wire types.

A connection carries one request: `{"namespace", "method", "params"}`. The answer is one line,
`{"result"}` or `{"error": {"code", "message", "details"}}`; a stream is lines of `{"item"}` and at
last `{"end": true}`. Who wants no more closes the connection.
"""

from __future__ import annotations

from typing import Final

import trio
from attrs import define, field

from aiki_sdk import JsonValue, LimitExceeded, Unavailable, dumps, loads

LINE_MAX: Final = 16 * 1024 * 1024
"""Bytes in one line: a page of 500 entries with payloads fits; a reader stops at more."""

_CHUNK: Final = 64 * 1024


@define(eq=False)
class Lines:
    """Lines of JSON over a stream."""

    stream: trio.SocketStream
    _buffer: bytearray = field(factory=bytearray, init=False)

    async def send(self, value: JsonValue) -> None:
        """Write one line.

        Raises:
            Unavailable: the other side has gone.
        """
        try:
            await self.stream.send_all(dumps(value) + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise _gone() from error

    async def receive(self) -> JsonValue:
        """Read one line.

        Raises:
            Unavailable: the other side has gone.
            LimitExceeded: the line is longer than `LINE_MAX`.
            PayloadError: it is not JSON.
        """
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = bytearray(rest)
                return loads(bytes(line))
            if len(self._buffer) > LINE_MAX:
                size = len(self._buffer)
                raise LimitExceeded("bytes in a line", LINE_MAX, size, "ask for less at once")
            try:
                chunk = await self.stream.receive_some(_CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise _gone() from error
            if not chunk:
                raise _gone()
            self._buffer += chunk


def _gone() -> Unavailable:
    return Unavailable("the runtime that held the database has gone, or reloads; try again")

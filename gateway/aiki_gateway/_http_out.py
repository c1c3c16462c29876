"""The answer to one request, on its way out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import define, field
from hypercorn.typing import ASGISendCallable

from ._call import Reply

EVENT_STREAM: Final = "text/event-stream"

# Answers are about one moment; and what is JSON must not be taken for a page by a browser.
_EVERY_REPLY: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))


@define(eq=False)
class HttpOut:
    """Sends one answer: complete, or as a stream."""

    _send: ASGISendCallable
    _head_only: bool
    _extra: Sequence[tuple[bytes, bytes]]
    status: int = field(default=0, init=False)
    sent_bytes: int = field(default=0, init=False)

    @property
    def opened(self) -> bool:
        """Whether a status was sent; then it cannot be another one any more."""
        return self.status != 0

    async def reply(self, reply: Reply) -> None:
        """Send a complete answer."""
        headers = [*_EVERY_REPLY, *self._extra]
        if reply.status != 204:
            headers.append((b"content-type", reply.content_type.encode("ascii")))
            headers.append((b"content-length", b"%d" % len(reply.body)))
        for name, value in reply.headers:
            headers.append((name.encode("ascii"), value.encode("latin-1")))
        await self._start(reply.status, headers)
        self.sent_bytes += len(reply.body)
        await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def open(self) -> None:
        """Begin a stream of events."""
        headers = [*_EVERY_REPLY, *self._extra, (b"content-type", EVENT_STREAM.encode("ascii"))]
        # A proxy that collects what passes would hold the events back.
        headers.append((b"x-accel-buffering", b"no"))
        await self._start(200, headers)
        # A comment: the status goes out with it, before anything happens.
        await self.send(b":\n\n")

    async def send(self, data: bytes) -> None:
        """Send a part of a stream."""
        self.sent_bytes += len(data)
        if not self._head_only:
            await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        """End a stream."""
        if self.opened:
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self.status = status
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

"""One connection of a session: what is waiting to be sent, and the loop that carries frames.

The session's two ends put messages into a link; a connection takes frames out of it for as long as
its socket lives. Which socket that is, nobody here knows: a websocket in production, memory
streams in tests and in the simulator.

Invariant: a connection that was replaced or closed neither gives nor takes a frame any more.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final, Protocol

import trio
from attrs import define, field

from ._errors import ProtocolError, SessionClosed
from ._hello import encode_refusal
from ._limits import CloseCode
from ._link import Link

CLOSE_S: Final = 2.0
"""Seconds that closing a socket in good order may take; then it is cut off."""


class Transport(Protocol):
    """A socket that carries whole frames in order, or breaks."""

    async def send(self, frame: bytes) -> None:
        """Send a frame.

        Raises:
            SessionClosed: the socket is closed or broken.

        """
        ...

    async def receive(self) -> bytes:
        """Wait for a frame.

        Raises:
            SessionClosed: the socket is closed or broken; with the other side's code, if it gave
                one.

        """
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close the socket, telling why if it still can be told."""
        ...


@define(eq=False)
class Connection:
    """The frames of one socket.

    Attributes:
        link: where they come from.
        take: takes a received frame; raises `ProtocolError` if it is not one.
        on_closed: hears of the end, once.
        first: sent before anything of the link, if there is one.
        closed: why it ended; None: it has not.

    """

    link: Link
    take: Callable[[bytes], None]
    on_closed: Callable[[SessionClosed], None]
    first: bytes | None = None
    closed: SessionClosed | None = field(default=None, init=False)
    _ended: trio.Event = field(factory=trio.Event, init=False)
    _waiting: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def wake(self) -> None:
        """Say that a frame may have become possible."""
        if self._waiting:
            self._waiting.unpark_all()

    def close(self, error: SessionClosed) -> None:
        """End the connection; what is kept in the link is for the next one."""
        if self.closed is None:
            self.closed = error
            self._ended.set()
            self._waiting.unpark_all()
            self.on_closed(error)

    async def wait_closed(self) -> None:
        """Wait until the connection has ended."""
        await self._ended.wait()

    async def next_frame(self) -> bytes:
        """Wait for the next frame to be sent.

        Raises:
            SessionClosed: the connection has ended.

        """
        while True:
            if self.closed is not None:
                raise self.closed
            frame, self.first = self.first, None
            frame = frame or self.link.next_frame()
            if frame is not None:
                return frame
            await self._waiting.park()

    def receive(self, frame: bytes) -> None:
        """Take a frame that was received.

        Raises:
            SessionClosed: the connection has ended, or the frame ends it.

        """
        if self.closed is not None:
            raise self.closed
        try:
            self.take(frame)
        except ProtocolError as error:
            self.close(error)
            raise


async def receive_worker(
    accept: Callable[[bytes], Connection], transport: Transport, hello_s: float
) -> SessionClosed:
    """Serve a worker's socket from its first word to its end; return why it ended.

    Args:
        accept: takes the first word; raises `ProtocolError` if it is refused.
        transport: the socket.
        hello_s: seconds in which the first word must come.

    """
    first: bytes | None = None
    with trio.move_on_after(hello_s):
        try:
            first = await transport.receive()
        except SessionClosed as error:
            return error
    try:
        if first is None:
            raise ProtocolError(CloseCode.TIMEOUT, "the first word did not come in time")
        connection = accept(first)
    except ProtocolError as error:
        with trio.move_on_after(CLOSE_S), suppress(SessionClosed):
            await transport.send(encode_refusal(error))
        with trio.move_on_after(CLOSE_S):
            await transport.close(error.close_code, error.reason)
        return error
    return await carry(connection, transport)


async def carry(connection: Connection, transport: Transport) -> SessionClosed:
    """Carry frames in both directions until the connection or the socket ends; return why."""
    ends: list[SessionClosed] = []

    async def read() -> None:
        try:
            while True:
                connection.receive(await transport.receive())
        except SessionClosed as error:
            ends.append(error)
            nursery.cancel_scope.cancel()

    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(read)
            try:
                while True:
                    await transport.send(await connection.next_frame())
            except SessionClosed as error:
                ends.append(error)
                nursery.cancel_scope.cancel()
    finally:
        own = connection.closed
        connection.close(SessionClosed(CloseCode.GOING_AWAY, "the socket was given up"))
        told = own or (ends[0] if ends else None)
        if told is not None:  # else this was cancelled, and whoever did so closes the socket
            with trio.move_on_after(CLOSE_S, shield=True):
                await transport.close(told.close_code, told.reason)
    return own or ends[0]

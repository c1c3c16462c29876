"""A network of memory channels between one server and its workers, that a test can cut."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio
from attrs import define, field

from aiki_actors.session import (
    CloseCode,
    Connection,
    SessionClosed,
    Transport,
    receive_worker,
)
from aiki_trio import Runtime


@define(eq=False)
class Pipe:
    """One direction of a socket."""

    _put: trio.MemorySendChannel[bytes] = field(init=False)
    _get: trio.MemoryReceiveChannel[bytes] = field(init=False)
    closed: SessionClosed | None = field(default=None, init=False)
    muted: bool = field(default=False, init=False)
    frames: list[bytes] = field(factory=lambda: list[bytes](), init=False)

    def __attrs_post_init__(self) -> None:
        self._put, self._get = trio.open_memory_channel[bytes](64)

    async def send(self, frame: bytes) -> None:
        if self.closed is not None:
            raise self.closed
        self.frames.append(frame)
        if self.muted:
            await trio.lowlevel.checkpoint()
            return
        try:
            await self._put.send(frame)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            raise SessionClosed(CloseCode.GOING_AWAY, "cut") from None

    async def receive(self) -> bytes:
        try:
            return await self._get.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError):
            raise self.closed or SessionClosed(CloseCode.GOING_AWAY, "cut") from None

    def end(self, error: SessionClosed, *, lose: bool) -> None:
        """Close; `lose`: what is on its way is lost, else it arrives first."""
        if self.closed is None:
            self.closed = error
        self._put.close()
        if lose:
            self._get.close()


@define(eq=False)
class Socket:
    """One end of a socket: a `Transport`."""

    out: Pipe
    into: Pipe

    async def send(self, frame: bytes) -> None:
        await self.out.send(frame)

    async def receive(self) -> bytes:
        return await self.into.receive()

    async def close(self, code: int, reason: str) -> None:
        error = SessionClosed(code, reason)
        self.out.end(error, lose=False)
        self.into.end(error, lose=True)
        await trio.lowlevel.checkpoint()


@define(eq=False)
class Net:
    """All sockets to one server; the runtime behind it may be replaced or gone."""

    nursery: trio.Nursery
    runtime: Runtime | None = None
    reachable: bool = True
    pairs: list[tuple[Pipe, Pipe]] = field(factory=lambda: list[tuple[Pipe, Pipe]](), init=False)
    dialled: int = field(default=0, init=False)

    @asynccontextmanager
    async def dial(self) -> AsyncGenerator[Transport]:
        """Open a socket to the server, as a worker does."""
        await trio.lowlevel.checkpoint()
        runtime = self.runtime
        self.dialled += 1
        if runtime is None or not self.reachable:
            raise SessionClosed(CloseCode.GOING_AWAY, "cannot be reached")
        up, down = Pipe(), Pipe()
        self.pairs.append((up, down))
        server, worker = Socket(down, up), Socket(up, down)

        async def serve() -> None:
            def accept(first: bytes) -> Connection:
                return runtime.sessions.accept(first)

            await receive_worker(accept, server, 10.0)

        self.nursery.start_soon(serve)
        try:
            yield worker
        finally:
            with trio.CancelScope(shield=True):
                await worker.close(CloseCode.GOING_AWAY, "left")

    def cut(self) -> None:
        """Break every socket; what is on its way is lost."""
        for up, down in self.pairs:
            up.end(SessionClosed(CloseCode.GOING_AWAY, "cut"), lose=True)
            down.end(SessionClosed(CloseCode.GOING_AWAY, "cut"), lose=True)
        self.pairs.clear()

    def mute(self, *, up: bool = False, down: bool = False) -> None:
        """Let frames of a direction vanish, without either end noticing."""
        for to_server, to_worker in self.pairs:
            to_server.muted = to_server.muted or up
            to_worker.muted = to_worker.muted or down

"""A TCP proxy that loses what it is told to lose: requests, replies, or whole connections.

It stands between a client and a server and knows nothing of their protocol: a request is what the
client sends at once, a reply what the server sends at once.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

import trio
from attrs import define, field

CHUNK_BYTES: Final = 1 << 16


@define(eq=False)
class Proxy:
    """A proxy on a port of its own.

    Attributes:
        lose_reply: cut the connection of the next reply instead of passing it on. Taken back once
            it has happened.
        lose_request: cut the connection of the next request instead of passing it on.
        delay_request: take the client's connection away at its next request, and pass the request
            on when `deliver` is called, to a server that has noticed nothing.
        silent: pass nothing on in either direction, for as long as it is set.
        refusing: take no new connections.
        lost: how many times something was lost.
    """

    server_port: int
    port: int = 0
    lose_reply: bool = False
    lose_request: bool = False
    delay_request: bool = False
    silent: bool = False
    refusing: bool = False
    lost: int = 0
    connections: int = 0
    broken: int = 0
    _deliver: trio.Event = field(factory=trio.Event)
    _delivered: trio.Event = field(factory=trio.Event)

    async def deliver(self) -> None:
        """Pass a delayed request on, and wait until the server has answered it."""
        self._deliver.set()
        await self._delivered.wait()

    async def handle(self, client: trio.SocketStream) -> None:
        """Serve one connection."""
        if self.refusing:
            await client.aclose()
            return
        self.connections += 1
        server = await trio.open_tcp_stream("127.0.0.1", self.server_port)
        async with client, server:
            try:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._requests, client, server, nursery.cancel_scope)
                    nursery.start_soon(self._replies, client, server, nursery.cancel_scope)
            except* (trio.BrokenResourceError, trio.ClosedResourceError):
                self.broken += 1

    async def _requests(
        self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        while data := await client.receive_some(CHUNK_BYTES):
            if self.lose_request:
                self.lose_request = False
                self.lost += 1
                break
            if self.delay_request:
                self.delay_request = False
                self.lost += 1
                await self._pass_later(client, server, data)
                break
            if self.silent:
                await trio.sleep_forever()
            await server.send_all(data)
        scope.cancel()

    async def _pass_later(
        self, client: trio.SocketStream, server: trio.SocketStream, data: bytes
    ) -> None:
        await client.aclose()
        await self._deliver.wait()
        await server.send_all(data)
        await self._delivered.wait()

    async def _replies(
        self, client: trio.SocketStream, server: trio.SocketStream, scope: trio.CancelScope
    ) -> None:
        while data := await server.receive_some(CHUNK_BYTES):
            if self.lose_reply:
                self.lose_reply = False
                self.lost += 1
                break
            if self.silent:
                await trio.sleep_forever()
            try:
                await client.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                # The client of a delayed request is gone; the server has answered it all the same.
                self._delivered.set()
                break
        scope.cancel()


@asynccontextmanager
async def open_proxy(server_port: int) -> AsyncGenerator[Proxy, None]:
    """Run a proxy in front of a port of this machine for as long as the block lasts."""
    proxy = Proxy(server_port)
    serve = partial(trio.serve_tcp, proxy.handle, 0, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(serve)
        proxy.port = listeners[0].socket.getsockname()[1]
        yield proxy
        nursery.cancel_scope.cancel()

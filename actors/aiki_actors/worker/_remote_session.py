"""The worker's session actor: keeps a connection to the server, and watches the lease.

It dials, greets, carries frames and beats until the connection ends, and dials again, waiting
longer each time (with jitter, up to a bound) while that fails. A refusal that trying again does not
heal ends the worker with that error.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import ClassVar, Final, Never

import trio
from attrs import define, field

from aiki_actors.kernel import Actor, ActorContext
from aiki_actors.session import (
    FATAL,
    CloseCode,
    ProtocolError,
    SessionClosed,
    Transport,
    Welcome,
    carry,
    encode_hello,
    read_welcome,
)
from aiki_sdk import AikiError, Rng, Unauthorized

from ._remote import RemoteServer

LOGGER: Final = logging.getLogger("aiki.worker")

REDIAL_FIRST_S: Final = 0.1
REDIAL_MAX_S: Final = 5.0
"""Pauses between attempts to connect: doubled each time, and half to one and a half of that."""

Dial = Callable[[], AbstractAsyncContextManager[Transport]]
"""Opens a socket to the server; raises `SessionClosed` if that is not possible now."""


@define(eq=False)
class RemoteSession(Actor[Never]):
    """Keeps a worker connected.

    Attributes:
        fail: hears of a refusal that ends the worker.

    """

    kind: ClassVar[str] = "session"
    remote: RemoteServer
    dial: Dial
    rng: Rng
    fail: Callable[[AikiError], None]
    _pause_s: float = field(default=REDIAL_FIRST_S, init=False)

    async def started(self, context: ActorContext[Never]) -> None:
        """Begin to connect."""
        context.start_soon(self._keep_connected)
        context.start_soon(self._watch_lease)

    def describe(self) -> str:
        """Return how the session is."""
        return self.remote.describe()

    async def _keep_connected(self) -> None:
        while True:
            try:
                async with self.dial() as transport:
                    closed = await self._converse(transport)
            except SessionClosed as error:
                closed = error
            if isinstance(closed, ProtocolError) and closed.close_code in FATAL:
                self.fail(_refusal(closed))
                return
            if closed.close_code == CloseCode.NORMAL:
                return
            LOGGER.info("worker %s: %s; connecting again", self.remote.worker_id, closed)
            await trio.sleep(self._pause_s * (0.5 + self.rng.random()))
            self._pause_s = min(self._pause_s * 2, REDIAL_MAX_S)

    async def _converse(self, transport: Transport) -> SessionClosed:
        """Greet the server and carry frames until the connection ends; return why it did.

        Raises:
            ProtocolError: the server refused.
            SessionClosed: the socket broke before it had answered.

        """
        remote = self.remote
        said_at = remote.monotonic()
        welcome: Welcome | None = None
        with trio.move_on_after(remote.limits.hello_s):
            await transport.send(encode_hello(remote.hello()))
            welcome = read_welcome(await transport.receive())
        if welcome is None:
            await transport.close(CloseCode.TIMEOUT, "no welcome")
            raise SessionClosed(CloseCode.TIMEOUT, "the server did not answer the first word")
        connection = remote.welcomed(welcome, said_at)
        LOGGER.info(
            "worker %s is connected, %s",
            remote.worker_id,
            "going on" if welcome.resumed else "in a new session",
        )
        self._pause_s = REDIAL_FIRST_S
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            closed = await carry(connection, transport)
            nursery.cancel_scope.cancel()
        # What ends a conversation is no refusal: the next one may go well.
        return SessionClosed(closed.close_code, closed.reason)

    async def _beat(self) -> None:
        while True:
            self.remote.beat()
            await trio.sleep(self.remote.limits.beat_s)

    async def _watch_lease(self) -> None:
        """Give up every claim when the server has not answered for two thirds of the lease."""
        remote = self.remote
        while True:
            left_s = remote.lease_left_s()
            if left_s > 0 and remote.holds_claims:
                await trio.sleep(left_s)
                continue
            if remote.holds_claims:
                remote.lapse()
            remote.lease.changed = trio.Event()
            await remote.lease.changed.wait()


def _refusal(error: ProtocolError) -> AikiError:
    """Return the error that ends a worker which the server does not let in."""
    if error.close_code == CloseCode.UNAUTHORIZED:
        return Unauthorized(f"the server does not let this worker in: {error.reason}")
    return error

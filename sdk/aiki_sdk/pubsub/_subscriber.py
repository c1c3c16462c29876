"""One subscription to one channel, over one connection: opened, read, closed.

Reading may be cancelled at any time and loses nothing. An idle connection is asked whether it still
lives, so that one which was cut silently is noticed within two pauses.
"""

from typing import Final, Self

import trio

from aiki_sdk._request_errors import Unauthorized, Unavailable

from ._address import Address
from ._resp import NotRedis, Reader, Refusal, Value, pack

CONNECT_S: Final = 10.0
IDLE_S: Final = 15.0
"""After so long without a word the server is asked for one."""

_CHUNK: Final = 65_536
_SECRET_WORDS: Final = ("NOAUTH", "WRONGPASS", "NOPERM", "ERR AUTH", "ERR invalid password")


class Subscriber:
    """A subscription that stands. `idle_s`: pause after which the server is asked for a word."""

    def __init__(self, address: Address, stream: trio.abc.Stream, idle_s: float) -> None:
        """Use `open`."""
        self._address = address
        self._stream = stream
        self._reader = Reader()
        self._idle_s = idle_s

    @classmethod
    async def open(cls, address: Address, channel: str, *, idle_s: float = IDLE_S) -> Self:
        """Connect, say who we are, and subscribe.

        Raises:
            Unavailable: nobody answers there, or not as Redis does.
            Unauthorized: the password or the user is wrong, or may not subscribe.

        """
        with trio.move_on_after(CONNECT_S):
            stream = await _connect(address)
            made = cls(address, stream, idle_s)
            try:
                await made._greet(channel)
            except BaseException:
                await trio.aclose_forcefully(stream)
                raise
            return made
        raise Unavailable(f"Redis at {address} did not answer within {CONNECT_S} s")

    async def _greet(self, channel: str) -> None:
        words: list[bytes] = []
        if self._address.password is not None:
            who = [self._address.user] if self._address.user else []
            words.append(pack("AUTH", *who, self._address.password))
        words.append(pack("SUBSCRIBE", channel))
        await self._send(b"".join(words))
        for _ in words:
            reply = await self._next()
            if isinstance(reply, Refusal):
                self._raise(reply)

    async def next(self) -> bytes:
        """Wait for the next message and return it.

        Raises:
            Unavailable: the connection is lost.

        """
        while True:
            reply: Value = None
            with trio.move_on_after(self._idle_s) as scope:
                reply = await self._next()
            if scope.cancelled_caught:
                await self._ask_for_a_word()
            elif isinstance(reply, Refusal):
                self._raise(reply)
            elif isinstance(reply, list):
                match reply:
                    case [b"message", bytes(), bytes() as message]:
                        return message
                    case _:
                        continue

    async def _ask_for_a_word(self) -> None:
        await self._send(pack("PING"))
        with trio.move_on_after(self._idle_s):
            # The word itself, or a message that comes first, stays in the reader for `_next`.
            await self._receive()
            return
        raise Unavailable(f"Redis at {self._address} is silent")

    async def _next(self) -> Value:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            try:
                found = self._reader.take()
            except NotRedis as error:
                raise Unavailable(f"{self._address} does not speak as Redis: {error}") from error
            if found is not None:
                return found[0]
            await self._receive()

    async def _receive(self) -> None:
        try:
            data = await self._stream.receive_some(_CHUNK)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise Unavailable(f"the connection to Redis at {self._address} broke") from error
        if not data:
            raise Unavailable(f"Redis at {self._address} closed the connection")
        self._reader.feed(bytes(data))

    async def _send(self, data: bytes) -> None:
        try:
            await self._stream.send_all(data)
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as error:
            raise Unavailable(f"the connection to Redis at {self._address} broke") from error

    def _raise(self, refusal: Refusal) -> None:
        # Only the word that says what kind it is: the rest may repeat what we sent.
        word = " ".join(refusal.text.split(" ")[:2])
        if refusal.text.startswith(_SECRET_WORDS):
            raise Unauthorized(f"Redis at {self._address} does not let us in: {word.split()[0]}")
        raise Unavailable(f"Redis at {self._address} refused to subscribe: {word}")

    async def aclose(self) -> None:
        """Close the connection at once."""
        await trio.aclose_forcefully(self._stream)


async def _connect(address: Address) -> trio.abc.Stream:
    try:
        if address.path is not None:
            return await trio.open_unix_socket(address.path)
        stream = await trio.open_tcp_stream(address.host, address.port)
    except OSError as error:
        raise Unavailable(f"Redis at {address} cannot be reached: {error}") from error
    if address.tls is None:
        return stream
    secured = trio.SSLStream(stream, address.tls, server_hostname=address.host)
    try:
        await secured.do_handshake()
    except trio.BrokenResourceError as error:
        await trio.aclose_forcefully(stream)
        reason = error.__cause__ or error
        raise Unavailable(f"Redis at {address}: the TLS handshake failed: {reason}") from error
    except BaseException:
        await trio.aclose_forcefully(stream)
        raise
    return secured

"""Websocket clients that break the protocol: each is closed with the right code, and alone."""

from __future__ import annotations

import logging
import random
import struct

import pytest
import trio
from wsproto.frame_protocol import CloseReason

from aiki_gateway import GatewaySettings
from tests.gateway.serving import Served, raw, served, until
from tests.gateway.sockets import Socket, websocket

HANDSHAKE = (
    b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SMALL = GatewaySettings(websocket_message_bytes_max=1_000, ping_s=0.05, stop_grace_s=1)


def frame(
    payload: bytes,
    *,
    opcode: int = 1,
    fin: bool = True,
    masked: bool = True,
    rsv: int = 0,
    length: int | None = None,
) -> bytes:
    """Return one frame, as proper or not as is asked for."""
    first = (0x80 if fin else 0) | (rsv << 4) | opcode
    size = len(payload) if length is None else length
    mask = 0x80 if masked else 0
    if size < 126:
        head = struct.pack("!BB", first, mask | size)
    elif size < 65_536:
        head = struct.pack("!BBH", first, mask | 126, size)
    else:
        head = struct.pack("!BBQ", first, mask | 127, size)
    return head + (b"\0\0\0\0" if masked else b"") + payload


PROTOCOL = int(CloseReason.PROTOCOL_ERROR)
HOSTILE: dict[str, tuple[bytes, int]] = {
    "no mask": (frame(b"{}", masked=False), PROTOCOL),
    "a reserved bit": (frame(b"{}", rsv=4), PROTOCOL),
    "a reserved opcode": (frame(b"{}", opcode=3), PROTOCOL),
    "a continuation of nothing": (frame(b"{}", opcode=0), PROTOCOL),
    "a new message within another": (frame(b"{", fin=False) + frame(b"}"), PROTOCOL),
    "a ping in parts": (frame(b"x", opcode=9, fin=False), PROTOCOL),
    "a ping that is too long": (frame(b"x" * 126, opcode=9), PROTOCOL),
    "a length beyond 63 bits": (frame(b"", length=2**64 - 1), PROTOCOL),
    "a length in too many bytes": (b"\x81\xfe\x00\x01\0\0\0\0a", PROTOCOL),
    "a close of one byte": (frame(b"x", opcode=8), PROTOCOL),
    "a close with a code that is none": (frame(b"\x00\x01", opcode=8), PROTOCOL),
    "text that is not UTF-8": (frame(b"\xff\xfe"), int(CloseReason.INVALID_FRAME_PAYLOAD_DATA)),
    "a message that is too long": (frame(b"x" * 1_001), int(CloseReason.MESSAGE_TOO_BIG)),
    "a promise of a message that is too long": (
        frame(b"x" * 2_000, length=2**40),
        int(CloseReason.MESSAGE_TOO_BIG),
    ),
    "many parts that are too long together": (
        frame(b"x" * 100, fin=False) + frame(b"x" * 100, opcode=0, fin=False) * 20,
        int(CloseReason.MESSAGE_TOO_BIG),
    ),
}


async def _still_fine(server: Served) -> None:
    """Check that the server serves others, and has let go of what was broken."""
    async with websocket(server.bound) as other:
        await other.say(type="subscribe", id="s")
        assert (await other.hear())["type"] == "snapshot"
    await until(lambda: server.gateway.endswith(" 0 connections"))


@pytest.mark.parametrize("what", HOSTILE)
async def test_a_broken_protocol_is_closed_with_the_reason(
    what: str, caplog: pytest.LogCaptureFixture
) -> None:
    data, code = HOSTILE[what]
    with caplog.at_level(logging.INFO):
        async with served(SMALL) as server:
            async with websocket(server.bound) as socket:
                await socket.stream.send_all(data)
                assert await socket.closed() == code
            await _still_fine(server)
    assert [record for record in caplog.records if record.name != "httpx"] == []


@pytest.mark.parametrize(("over", "heard"), [(-1, True), (0, True), (1, False)])
async def test_a_message_is_taken_up_to_its_limit(over: int, heard: bool) -> None:
    async with served(SMALL) as server, websocket(server.bound) as socket:
        await socket.say("x" * (1_000 + over))
        if heard:
            assert (await socket.hear())["type"] == "error"
        else:
            assert await socket.closed() == CloseReason.MESSAGE_TOO_BIG


async def test_pings_are_answered_and_a_flood_of_them_is_survived() -> None:
    async with served(SMALL) as server:
        async with websocket(server.bound) as socket:
            await socket.stream.send_all(frame(b"hi", opcode=9) * 2_000)
            await socket.say(type="subscribe", id="s")
            assert (await socket.hear())["type"] == "snapshot"
            assert socket.pongs == 2_000
        await _still_fine(server)


async def test_who_sends_on_after_the_close_is_not_listened_to() -> None:
    async with served(SMALL) as server:
        async with websocket(server.bound) as socket:
            try:
                for _ in range(50):
                    await socket.stream.send_all(frame(b"x" * 2_000))
            except trio.BrokenResourceError:
                pass
            assert await socket.closed() in {CloseReason.MESSAGE_TOO_BIG, 1006}
        async with websocket(server.bound) as socket:
            await socket.stream.send_all(frame(b"\x03\xe8", opcode=8) + frame(b"{}") * 10)
            assert await socket.closed() in {1000, 1006}
        await _still_fine(server)


async def test_who_answers_no_ping_and_reads_nothing_does_not_hold_up_a_stop() -> None:
    async with served(SMALL) as server, websocket(server.bound) as socket:
        await socket.say(type="subscribe", id="s")
        await trio.sleep(0.2)
        started = trio.current_time()
        await server.runtime.system.root.stop_child("gateway")
        assert trio.current_time() - started < 3


@pytest.mark.parametrize(
    ("header", "other"),
    [
        (b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Version: 12"),
        (b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", b""),
    ],
)
async def test_a_handshake_that_is_none_is_refused(header: bytes, other: bytes) -> None:
    async with served(SMALL) as server:
        answer = await raw(server.bound, HANDSHAKE.replace(header, other))
        assert answer.startswith(b"HTTP/1.1 400")
        await _still_fine(server)


async def test_frames_before_the_handshake_is_answered_are_survived() -> None:
    async with served(SMALL) as server:
        await raw(server.bound, HANDSHAKE + frame(b"{}") + frame(b"", opcode=8))
        await _still_fine(server)


async def test_compression_is_never_agreed_to() -> None:
    """A message of a few bytes could become one of gigabytes."""
    async with served(SMALL) as server:
        asked = HANDSHAKE[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
        stream = await trio.open_tcp_stream(server.bound.host, server.bound.port)
        async with stream:
            await stream.send_all(asked)
            answer = bytes(await stream.receive_some(65_536))
        assert answer.startswith(b"HTTP/1.1 101")
        assert b"xtensions" not in answer


async def test_chance_bytes_do_no_harm() -> None:
    rng = random.Random(7)
    async with served(SMALL) as server:
        for _ in range(40):
            async with websocket(server.bound) as socket:
                await _babble(rng, socket)
        for _ in range(20):
            await raw(server.bound, rng.randbytes(200) + b"\r\n\r\n")
        await _still_fine(server)


async def _babble(rng: random.Random, socket: Socket) -> None:
    """Send frames with chance faults, and whatever the server says to that."""
    try:
        for _ in range(rng.randrange(1, 6)):
            data = frame(
                rng.randbytes(rng.choice((0, 1, 20, 130, 1_100))),
                opcode=rng.choice((0, 1, 2, 3, 8, 9, 10)),
                fin=rng.random() < 0.8,
                masked=rng.random() < 0.9,
                rsv=rng.choice((0, 0, 0, 1)),
            )
            await socket.stream.send_all(data[: rng.choice((len(data), len(data) // 2))])
        await socket.stream.send_eof()
        await socket.closed()
    except (trio.BrokenResourceError, trio.ClosedResourceError):
        return

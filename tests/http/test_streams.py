"""Live updates over HTTP: gapless over lost connections, and nothing is left open."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import httpx
import pytest
import trio
import trio.testing
from hypothesis import given, strategies as st

from aiki_sdk import Client, NotFound, RunHandle, Unavailable
from aiki_sdk.http import HttpSettings
from aiki_sdk.http._sse import EVENT_BYTES_MAX, EventReader, SentEvent, StreamTooLong
from tests.unit.sdk.fake_server import QUICK, FakeServer, Fault, event, problem


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(server: FakeServer) -> Client:
    return Client(server.client_port())


async def started(client: Client, server: FakeServer, entries: int = 5) -> RunHandle[Any]:
    handle = await client.start("greet", name="Ada")
    for number in range(entries):
        server.port.record(handle.id, "task-succeeded", output=number)
    return handle


def openings(server: FakeServer) -> list[str]:
    """Return the `after` of every stream that was asked for."""
    found = [request for request in server.seen if request.url.path.endswith("/stream")]
    return [request.url.params["after"] for request in found]


# --- Resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["slow", "closing", ""], ids=["slow", "closing", "cut"])
async def test_a_stream_that_is_cut_off_goes_on_unseen(
    server: FakeServer, client: Client, reason: str, autojump_clock: trio.testing.MockClock
) -> None:
    """Cut off after every second update, the reader sees each once, and needs no patience."""
    handle = await started(client, server)
    server.port.complete(handle.id)
    server.stream_cut = (2, reason)

    seen = [update.seq async for update in handle.updates()]

    assert seen == [1, 2, 3, 4, 5, 6, 7, 8]
    assert openings(server)[:4] == ["0", "2", "4", "6"]


async def test_the_end_of_a_run_that_cannot_go_on_needs_no_further_question(
    server: FakeServer, client: Client
) -> None:
    handle = await started(client, server)
    server.port.complete(handle.id)
    del server.seen[:]

    assert [update.seq async for update in handle.updates()][-1] == 8
    assert [request.url.path for request in server.seen] == [f"/v1/runs/{handle.id}/stream"]


async def test_a_connection_that_is_lost_half_way_is_replaced(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Lost in the middle of an event, of which the beginning had come already."""

    class Losing(FakeServer):
        lost = 0

        async def _stream(self, run_id: str, after: int) -> AsyncGenerator[bytes]:
            async with aclosing(super()._stream(run_id, after)) as pieces:
                async for piece in pieces:
                    if self.lost < 3 and b"id: 4" in piece:
                        self.lost += 1
                        yield piece[: len(piece) // 2]
                        raise httpx.ReadError("lost")
                    yield piece

    server = Losing()
    client = Client(server.client_port())
    handle = await started(client, server)
    server.port.complete(handle.id)

    assert [update.seq async for update in handle.updates()] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert openings(server) == ["0", "3", "3", "3"]


async def test_a_server_that_is_away_is_waited_for(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await started(client, server)
    server.port.complete(handle.id)
    server.planned(
        *[Fault("/stream", error=httpx.ConnectError)] * 5,
        Fault("/stream", answer=problem(Unavailable("starting"))),
    )

    assert [update.seq async for update in handle.updates(after=6)] == [7, 8]


async def test_a_server_that_stays_away_is_an_error_and_the_next_read_resumes(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await started(client, server)
    updates = handle.updates()
    assert (await anext(updates)).seq == 1
    server.port.complete(handle.id)
    server.faults += [Fault("/stream", error=httpx.ConnectError)] * 10_000
    await updates._close(None)

    with pytest.raises(Unavailable, match="no server answers"):
        await anext(updates)
    assert trio.current_time() <= QUICK.reconnect_s

    server.faults.clear()
    assert [update.seq async for update in updates] == [2, 3, 4, 5, 6, 7, 8]


async def test_a_stream_without_a_sign_of_life_is_opened_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """The other side is gone without a word, as behind a router that forgot the connection."""

    class Silent(FakeServer):
        silent = 2

        async def _stream(self, run_id: str, after: int) -> AsyncGenerator[bytes]:
            if self.silent:
                self.silent -= 1
                yield b": hello\n\n"
                await trio.sleep_forever()
            async for piece in super()._stream(run_id, after):
                yield piece

    server = Silent()
    client = Client(server.client_port())
    handle = await started(client, server, 0)
    server.port.complete(handle.id)

    assert [update.seq async for update in handle.updates()] == [1, 2, 3]
    assert trio.current_time() == 2 * QUICK.stream_idle_s


async def test_signs_of_life_keep_a_stream_open(
    autojump_clock: trio.testing.MockClock,
) -> None:
    class Breathing(FakeServer):
        async def _stream(self, run_id: str, after: int) -> AsyncGenerator[bytes]:
            for _ in range(20):
                yield b": alive\n\n"
                await trio.sleep(15)
            async for piece in super()._stream(run_id, after):
                yield piece

    server = Breathing()
    client = Client(server.client_port())
    handle = await started(client, server, 0)
    server.port.complete(handle.id)

    assert [update.seq async for update in handle.updates()] == [1, 2, 3]
    assert openings(server) == ["0"]


async def test_what_comes_twice_is_given_once(autojump_clock: trio.testing.MockClock) -> None:
    class Repeating(FakeServer):
        async def _stream(self, run_id: str, after: int) -> AsyncGenerator[bytes]:
            async for piece in super()._stream(run_id, max(0, after - 2)):
                yield piece
                if self.stream_cut is None:
                    yield piece

    server = Repeating()
    client = Client(server.client_port())
    handle = await started(client, server, 0)
    server.port.complete(handle.id)

    assert [update.seq async for update in handle.updates()] == [1, 2, 3]


async def test_the_stream_of_an_unknown_run_is_not_found(client: Client) -> None:
    handle = await client.start("greet", name="Ada")
    handle.id = "run_9"
    with pytest.raises(NotFound, match="run_9"):
        await anext(handle.updates())


async def test_a_wait_for_a_status_ends_in_time_also_when_updates_come(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await started(client, server)

    async def go_on() -> None:
        while True:
            await trio.sleep(1)
            server.port.record(handle.id, "task-succeeded")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        with pytest.raises(TimeoutError):
            await handle.wait("sleeping", timeout=10.5)
        nursery.cancel_scope.cancel()

    assert trio.current_time() == 10.5


async def test_a_stream_that_is_refused_half_way_is_tried_again(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    """The connection is lost while the reason is being read."""

    async def broken() -> AsyncGenerator[bytes]:
        yield b'{"code": "unav'
        raise httpx.ReadError("lost")

    handle = await started(client, server, 0)
    server.port.complete(handle.id)
    server.planned(Fault("/stream", answer=httpx.Response(503, content=broken())))

    assert [update.seq async for update in handle.updates()] == [1, 2, 3]


async def test_an_event_without_an_end_is_refused(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await started(client, server)
    endless = b"data: " + b"x" * (EVENT_BYTES_MAX + 1)
    server.planned(Fault("/stream", answer=httpx.Response(200, content=endless)))

    with pytest.raises(Unavailable, match="longer than"):
        await anext(handle.updates())


# --- Leaving --------------------------------------------------------------------------------------


async def test_leaving_the_block_closes_the_stream_at_once(
    server: FakeServer, client: Client
) -> None:
    handle = await started(client, server)

    async with handle.updates() as updates:
        async for _ in updates:
            assert server.port.open_streams == 1
            break

    assert server.port.open_streams == 0


async def test_a_stream_that_was_dropped_is_closed_by_the_next_request(
    server: FakeServer, client: Client
) -> None:
    """Nothing is left to the garbage collector, which would warn of what it finds."""
    handle = await started(client, server)

    async for _ in handle.updates():
        break
    gc.collect()
    assert server.port.open_streams == 1
    await handle.status()

    assert server.port.open_streams == 0


async def test_closing_the_client_closes_dropped_streams(server: FakeServer) -> None:
    async with Client(server.client_port()) as client:
        handle = await started(client, server)
        await anext(handle.updates())
        gc.collect()

    assert server.port.open_streams == 0


@pytest.mark.parametrize("steps", range(8))
async def test_a_read_that_is_cancelled_anywhere_leaves_nothing_open(
    server: FakeServer, client: Client, steps: int
) -> None:
    """Cancelled at the n-th step; what is read afterwards has no gap."""
    handle = await started(client, server)
    server.port.complete(handle.id)
    updates = handle.updates()
    seen: list[int] = []

    async def read() -> None:
        async for update in updates:
            seen.append(update.seq)
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(read)
        for _ in range(steps):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()

    await updates._close(None)
    assert server.port.open_streams == 0
    seen += [update.seq async for update in handle.updates(after=updates.last_seq)]
    assert seen == list(range(1, 9))


def test_updates_work_under_asyncio_and_leave_nothing_open() -> None:
    async def main() -> None:
        server = FakeServer()
        settings = HttpSettings(backoff_s=0.001)
        async with Client(server.client_port(settings)) as client:
            handle = await started(client, server)
            server.port.complete(handle.id)
            server.stream_cut = (3, "slow")
            assert [update.seq async for update in handle.updates()] == list(range(1, 9))
            async with handle.updates() as updates:
                assert (await anext(updates)).seq == 1
            assert server.port.open_streams == 0
            await anext(handle.updates())
        gc.collect()
        assert server.port.open_streams == 0

    asyncio.run(main())


# --- Server-sent events ---------------------------------------------------------------------------


@given(
    events=st.lists(
        st.tuples(
            st.sampled_from(["update", "end"]), st.text(st.characters(exclude_characters="\r"))
        )
    ),
    sizes=st.lists(st.integers(1, 7), min_size=1),
    newline=st.sampled_from(["\n", "\r\n"]),
)
def test_events_come_out_whole_however_they_come_in(
    events: list[tuple[str, str]], sizes: list[int], newline: str
) -> None:
    text = "".join(
        f": comment\nid: 1\nevent: {kind}\n"
        + "".join(f"data: {line}\n" for line in data.split("\n"))
        + "\n"
        for kind, data in events
    )
    raw = text.replace("\n", newline).encode("utf-8", "replace")
    reader, found = EventReader(), list[SentEvent]()
    turn = 0
    while raw:
        size = sizes[turn % len(sizes)]
        found += reader.feed(raw[:size])
        raw, turn = raw[size:], turn + 1

    def sent(data: str) -> str:
        return data.encode("utf-8", "replace").decode()

    assert found == [SentEvent(kind, sent(data), "1") for kind, data in events]


def test_an_event_without_data_is_none_and_one_without_a_type_is_a_message() -> None:
    reader = EventReader()
    assert reader.feed(b"event: end\n\ndata\n\ndata:x\n\n") == [
        SentEvent("message", ""),
        SentEvent("message", "x"),
    ]


def test_an_endless_event_of_many_lines_is_refused() -> None:
    reader = EventReader()
    lines = (b"data: " + b"x" * 1_000_000 + b"\n") * 20
    with pytest.raises(StreamTooLong):
        reader.feed(lines)


def test_the_fake_server_writes_events_as_they_are_read() -> None:
    (sent,) = EventReader().feed(event("update", {"a": "b\nc"}, 4))
    assert sent == SentEvent("update", '{"a":"b\\nc"}', "4")

"""Updates over pub/sub: what is published, who gets it, and how gaps are filled."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest
import trio
from hypothesis import given, strategies as st

from aiki_actors.queue.redis import Trouble, UpdatePublisher
from aiki_sdk import InvalidRequest, SeededRng, Unauthorized, Unavailable
from aiki_sdk.protocol import RunStatus, Update
from aiki_sdk.pubsub import UpdateFeed, read_update, subscribe_updates, update_message
from aiki_sdk.pubsub._address import Address
from aiki_sdk.pubsub._resp import NotRedis, Reader, pack
from aiki_trio import Run, Runtime, open_runtime, workflow
from tests.redis.fleet import CLOCK, fast, until
from tests.servers.redis import Binary, RedisServer

ROOT = Path(__file__).resolve().parents[2]
START = datetime(2026, 11, 22, tzinfo=UTC)


def an_update(run_id: str, seq: int, status: RunStatus = RunStatus.RUNNING) -> Update:
    """Make an update."""
    at = START + timedelta(seconds=seq)
    return Update(
        run_id=run_id, seq=seq, at=at, kind="value-recorded", status=status, workflow="orders"
    )


@asynccontextmanager
async def publishing_updates(url: str) -> AsyncGenerator[UpdatePublisher]:
    """Run a publisher of updates, once it is connected."""
    publisher = UpdatePublisher(fast(url), CLOCK, SeededRng(1))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(publisher.run)
        await until(lambda: publisher.health.ok)
        yield publisher
        nursery.cancel_scope.cancel()


async def take(feed: UpdateFeed, number: int) -> list[tuple[str, int]]:
    """Read so many updates."""
    found: list[tuple[str, int]] = []
    with trio.fail_after(5):
        while len(found) < number:
            update = await anext(feed)
            found.append((update.run_id, update.seq))
    return found


def test_a_published_update_is_the_wire_form_with_a_version() -> None:
    update = an_update("run_1", 3)
    message = update_message(update)
    assert b'"v":1' in message
    assert b'"run_id":"run_1"' in message
    assert read_update(message) == update


def test_the_message_is_the_one_that_the_documentation_shows() -> None:
    page = (ROOT / "docs" / "how-to" / "follow-runs-over-redis.md").read_text(encoding="utf-8")
    shown = page.partition("```json")[2].partition("```")[0]
    assert read_update(shown.encode()) is not None
    written = json.loads(update_message(an_update("run_1", 3)))
    assert list(json.loads(shown)) == list(written)
    rows = [line.split("|")[1].strip(" `") for line in page.splitlines() if line[:3] == "| `"]
    assert rows == list(written)


@given(st.binary(max_size=40))
def test_no_message_whatever_makes_reading_fail(message: bytes) -> None:
    assert read_update(message) is None


def test_a_message_of_a_later_version_is_passed_over() -> None:
    assert read_update(update_message(an_update("r", 1)).replace(b'"v":1', b'"v":2')) is None


@given(st.lists(st.binary(max_size=20), max_size=5), st.integers(1, 7))
def test_replies_are_read_whole_however_they_are_cut(items: list[bytes], size: int) -> None:
    raw = b"*%d\r\n" % len(items)
    raw += b"".join(b"$%d\r\n%b\r\n" % (len(item), item) for item in items)
    raw += b":7\r\n"
    reader, found = Reader(), list[object]()
    for at in range(0, len(raw), size):
        reader.feed(raw[at : at + size])
        while (value := reader.take()) is not None:
            found.append(value[0])
    assert found == [items, 7]


@pytest.mark.parametrize("raw", [b"hello\r\n", b"$x\r\n", b"*99999999999\r\n", b"*1\r\n" * 9])
def test_what_is_not_redis_is_not_read_as_it(raw: bytes) -> None:
    reader = Reader()
    reader.feed(raw)
    with pytest.raises(NotRedis):
        reader.take()


def test_a_command_is_written_as_redis_reads_it() -> None:
    assert pack("AUTH", "é") == b"*2\r\n$4\r\nAUTH\r\n$2\r\n\xc3\xa9\r\n"


@pytest.mark.parametrize(
    "url", ["http://:s3cret@host", "redis://:s3cret@", "redis://:s3cret@h?a=1"]
)
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        Address.of(url)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(Address.of("redis://:s3cret@host"))


async def test_updates_reach_who_follows_their_namespace_only(
    every_binary: Binary, tmp_path: Path
) -> None:
    with RedisServer(tmp_path, every_binary) as server:
        async with (
            publishing_updates(server.url) as publisher,
            subscribe_updates(server.url, "default") as feed,
        ):
            publisher.publish("other", [an_update("run_x", 1)])
            publisher.publish("default", [an_update("run_1", seq) for seq in (1, 2, 3)])
            assert await take(feed, 3) == [("run_1", 1), ("run_1", 2), ("run_1", 3)]


async def test_what_comes_twice_is_given_once_and_a_gap_without_a_client_is_counted(
    server: RedisServer,
) -> None:
    async with (
        publishing_updates(server.url) as publisher,
        subscribe_updates(server.url) as feed,
    ):
        publisher.publish("default", [an_update("run_1", seq) for seq in (1, 1, 2, 1, 6)])
        assert await take(feed, 3) == [("run_1", 1), ("run_1", 2), ("run_1", 6)]
        assert (feed.gaps, feed.unfilled) == (1, 3)


async def test_a_feed_connects_again_by_itself(server: RedisServer) -> None:
    async with (
        publishing_updates(server.url) as publisher,
        subscribe_updates(server.url) as feed,
        trio.open_nursery() as nursery,
    ):
        publisher.publish("default", [an_update("run_1", 1)])
        await take(feed, 1)
        found: list[tuple[str, int]] = []

        async def read() -> None:
            found.extend(await take(feed, 1))

        nursery.start_soon(read)
        server.restart()
        await until(lambda: feed.reconnects == 1)
        publisher.publish("default", [an_update("run_1", 2)])
        await until(lambda: found == [("run_1", 2)])


async def test_while_redis_is_away_updates_are_dropped_and_counted(server: RedisServer) -> None:
    async with publishing_updates(server.url) as publisher:
        server.kill()
        publisher.publish("default", [an_update("run_1", 1)])
        await until(lambda: publisher.health.trouble is Trouble.DOWN)
        await until(lambda: publisher.dropped == 1)
        server.start()
        await until(lambda: publisher.health.ok)


def test_what_finds_no_room_is_dropped_and_counted() -> None:
    publisher = UpdatePublisher(fast("redis://localhost"), CLOCK, SeededRng(1), buffer=2)
    publisher.publish("default", [an_update("run_1", seq) for seq in (1, 2, 3)])
    assert publisher.dropped == 1


async def test_nobody_there_is_said_when_subscribing() -> None:
    with pytest.raises(Unavailable, match="cannot be reached"):
        async with subscribe_updates("redis://127.0.0.1:1"):
            pass


@pytest.mark.parametrize("password", ["", ":hunter2@"])
async def test_a_wrong_password_is_said_and_not_shown(
    start_server: Callable[..., RedisServer], password: str
) -> None:
    server = start_server(requirepass="right")
    with pytest.raises(Unauthorized) as caught:
        async with subscribe_updates(f"redis://{password}127.0.0.1:{server.port}"):
            pass
    assert "hunter2" not in str(caught.value)


async def test_the_right_password_and_a_unix_socket_let_in(
    start_server: Callable[..., RedisServer],
) -> None:
    server = start_server(requirepass="right")
    url = server.unix_url.replace("unix://", "unix://:right@")
    async with (
        publishing_updates(url) as publisher,
        subscribe_updates(url) as feed,
    ):
        publisher.publish("default", [an_update("run_1", 1)])
        assert await take(feed, 1) == [("run_1", 1)]


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a certificate for 127.0.0.1 that signs itself."""
    paths = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = "openssl req -x509 -newkey rsa:2048 -nodes -days 1 -subj /CN=127.0.0.1"
    words += " -addext subjectAltName=IP:127.0.0.1"
    places = ["-keyout", str(paths[1]), "-out", str(paths[0])]
    subprocess.run([*words.split(), *places], check=True, capture_output=True)
    return paths


@asynccontextmanager
async def behind_tls(server: RedisServer, certificate: tuple[Path, Path]) -> AsyncGenerator[str]:
    """Give a server TLS by a listener before it: few are built with it. Gives the URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*certificate)

    async def copy(source: trio.abc.ReceiveStream, sink: trio.abc.SendStream) -> None:
        async for data in source:
            await sink.send_all(data)

    async def handle(client: trio.SSLStream[trio.SocketStream]) -> None:
        try:
            inner = await trio.open_tcp_stream("127.0.0.1", server.port)
            async with client, inner, trio.open_nursery() as nursery:
                nursery.start_soon(copy, inner, client)
                await copy(client, inner)
                nursery.cancel_scope.cancel()
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            refused.append(1)

    refused: list[int] = []
    async with trio.open_nursery() as nursery:
        serve = partial(trio.serve_ssl_over_tcp, handle, 0, context, host="127.0.0.1")
        (listener,) = await nursery.start(serve)
        port = listener.transport_listener.socket.getsockname()[1]
        yield f"rediss://127.0.0.1:{port}/0"
        nursery.cancel_scope.cancel()


async def test_tls_lets_in_who_trusts_the_certificate_only(
    server: RedisServer, certificate: tuple[Path, Path]
) -> None:
    async with behind_tls(server, certificate) as url:
        trusting = f"{url}?ssl_ca_certs={certificate[0]}"
        async with (
            publishing_updates(trusting) as publisher,
            subscribe_updates(trusting) as feed,
        ):
            publisher.publish("default", [an_update("run_1", 1)])
            assert await take(feed, 1) == [("run_1", 1)]
        with pytest.raises(Unavailable, match="TLS"):
            async with subscribe_updates(url):
                pass
        doubting = UpdatePublisher(fast(url), CLOCK, SeededRng(1))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(doubting.run)
            await until(lambda: "certificate" in doubting.health.message.lower())
            nursery.cancel_scope.cancel()


@workflow("counting", version="1")
async def counting(run: Run, number: int) -> int:
    """Publish a few values, then wait for good."""
    for value in range(number):
        await run.publish("count", value)
    await run.sleep("rest", seconds=3600)
    return number


async def journal_updates(runtime: Runtime, run_id: str, number: int) -> list[Update]:
    """Read a run's updates from its server."""
    handle = await runtime.client.get(run_id)
    found: list[Update] = []
    async with handle.updates() as updates:
        async for update in updates:
            found.append(update)
            if len(found) == number:
                break
    return found


async def test_gaps_are_filled_from_the_journal_in_order(server: RedisServer) -> None:
    """Only the first and the last update are published; what is between comes from the server."""
    async with (
        open_runtime("sqlite://", workflows=[counting]) as runtime,
        publishing_updates(server.url) as publisher,
        subscribe_updates(server.url, client=runtime.client) as feed,
    ):
        handle = await runtime.client.start(counting, 5)
        updates = [u for u in await journal_updates(runtime, handle.id, 6) if not u.live]
        publisher.publish("default", [updates[0], updates[-1]])
        seqs = [seq for _, seq in await take(feed, updates[-1].seq)]
        assert seqs == list(range(1, updates[-1].seq + 1))
        assert (feed.gaps, feed.unfilled) == (1, 0)


async def test_runs_created_while_the_connection_was_lost_are_found(server: RedisServer) -> None:
    async with (
        open_runtime("sqlite://", workflows=[counting]) as runtime,
        publishing_updates(server.url) as publisher,
        subscribe_updates(server.url, client=runtime.client) as feed,
        trio.open_nursery() as nursery,
    ):
        first = await runtime.client.start(counting, 1)
        updates = await journal_updates(runtime, first.id, 1)
        publisher.publish("default", updates)
        assert await take(feed, 1) == [(first.id, 1)]
        server.kill()
        second = await runtime.client.start(counting, 2)
        await until(lambda: publisher.health.trouble is Trouble.DOWN)
        found: list[tuple[str, int]] = []

        async def read() -> None:
            while (second.id, 3) not in found:
                found.extend(await take(feed, 1))

        nursery.start_soon(read)
        server.start()
        await until(lambda: (second.id, 3) in found)
        assert [seq for run_id, seq in found if run_id == second.id][:3] == [1, 2, 3]


async def test_a_client_of_another_namespace_is_refused() -> None:
    async with open_runtime("sqlite://", workflows=[counting]) as runtime:
        with pytest.raises(InvalidRequest, match="namespace"):
            async with subscribe_updates("redis://h", "other", client=runtime.client):
                pass

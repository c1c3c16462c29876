"""Limits at one below, exactly and one above; and clients that are slow on purpose.

Slow clients wait for real time, for their sockets are real: every limit is set to a fraction of a
second for that.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
import trio
import trio.testing

from aiki_gateway import GatewaySettings
from tests.gateway.events import events_of
from tests.gateway.serving import Served, raw, rest_of, served, until

HEAD = "POST /v1/runs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def _padded(size: int) -> bytes:
    """Return a start request of exactly so many bytes."""
    empty = json.dumps({"workflow": "greet", "input": {"name": ""}}).encode()
    assert size >= len(empty)
    return empty.replace(b'""', b'"' + b"x" * (size - len(empty)) + b'"')


@pytest.mark.parametrize(("over", "status"), [(-1, 201), (0, 201), (1, 413)])
@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_is_taken_up_to_its_limit(over: int, status: int, chunked: bool) -> None:
    limit = 50_000
    async with served(GatewaySettings(body_bytes_max=limit)) as server:
        body = _padded(limit + over)

        async def parts() -> AsyncGenerator[bytes, None]:
            for start in range(0, len(body), 10_000):
                yield body[start : start + 10_000]

        answer = await server.http.post(
            "/v1/runs",
            content=parts() if chunked else body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code == status
        if status == 413:
            assert answer.json()["code"] == "limit-exceeded"
        assert (await server.http.get("/healthz")).status_code == 200


@pytest.mark.parametrize(("over", "status"), [(-1, b"200"), (0, b"200"), (1, b"431")])
async def test_headers_are_taken_up_to_their_limit(over: int, status: bytes) -> None:
    limit = 4_096
    async with served(GatewaySettings(header_bytes_max=limit)) as server:
        head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX: "
        filler = b"x" * (limit + over * 64 - len(head) - 4)
        answer = await raw(server.bound, head + filler + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 " + status)


async def test_a_flood_of_headers_is_cut_off() -> None:
    async with served() as server:
        flood = b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000
        answer = await raw(server.bound, flood)
        assert answer.startswith(b"HTTP/1.1 431") or not answer


async def test_a_body_far_over_the_limit_is_answered_while_it_is_still_sent() -> None:
    """The answer comes through although the client sends on: nothing resets the connection."""
    async with served(GatewaySettings(body_bytes_max=1_000)) as server:
        data = HEAD.encode() + b"Content-Length: 5000000\r\n\r\n" + b"x" * 500_000
        answer = await raw(server.bound, data)
        assert answer.startswith(b"HTTP/1.1 413")
        chunk = b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n"
        data = HEAD.encode() + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * 8
        answer = await raw(server.bound, data)
        assert answer.startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("pause_s", [0.02, 0.001])
async def test_slow_headers_are_not_waited_for(pause_s: float) -> None:
    async with served(GatewaySettings(header_timeout_s=0.3)) as server:
        stream = await trio.open_tcp_stream(server.bound.host, server.bound.port)
        answer = b"?"

        async def dribble() -> None:
            for byte in b"GET /healthz HTTP/1.1\r\nHost: localhost" * 40:
                with suppress(trio.BrokenResourceError):
                    await stream.send_all(bytes([byte]))
                await trio.sleep(pause_s)

        async with stream, trio.open_nursery() as nursery:
            nursery.start_soon(dribble)
            answer = await rest_of(stream)
            nursery.cancel_scope.cancel()
        assert answer == b""


async def test_a_request_that_came_in_time_is_answered_by_a_server_that_was_busy() -> None:
    body = b'{"workflow": "greet", "input": {"name": "Ada"}}'
    head = f"{HEAD}Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    async with served(GatewaySettings(header_timeout_s=0.2)) as server:
        async with await trio.open_tcp_stream(server.bound.host, server.bound.port) as stream:
            await until(lambda: server.gateway.endswith(" 1 connections"))
            await trio.testing.wait_all_tasks_blocked()
            os.write(stream.socket.fileno(), head + body)  # at once: nothing else has its turn
            busy_until = time.monotonic() + 0.4
            while time.monotonic() < busy_until:  # the loop that serves computes something
                pass
            answer = await rest_of(stream)
        assert answer.startswith(b"HTTP/1.1 201"), answer


async def test_a_slow_body_is_not_waited_for() -> None:
    async with served(GatewaySettings(body_timeout_s=0.2)) as server:
        answer = await raw(server.bound, HEAD.encode() + b"Content-Length: 100\r\n\r\n{")
        assert answer.startswith(b"HTTP/1.1 408")
        assert b"invalid-request" in answer


async def test_a_connection_that_stays_idle_is_closed() -> None:
    async with served(GatewaySettings(keep_alive_s=0.2)) as server:
        answer = await raw(server.bound, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")


async def test_pipelined_requests_are_answered_in_order() -> None:
    async with served() as server:
        one = b"GET %b HTTP/1.1\r\nHost: localhost\r\n%b\r\n"
        data = one % (b"/healthz", b"") + one % (b"/v1/workers", b"Connection: close\r\n")
        answer = await raw(server.bound, data)
        assert answer.index(b'{"status":"ok"}') < answer.index(b'{"workers":')


REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


async def test_one_connection_more_than_allowed_waits_for_its_turn() -> None:
    async with served(GatewaySettings(connections_max=2)) as server:
        host, port = server.bound.host, server.bound.port
        async with (
            events_of(server.bound, "/v1/stream"),
            events_of(server.bound, "/v1/stream") as second,
            await trio.open_tcp_stream(host, port) as third,
        ):
            await third.send_all(REQUEST)
            with trio.move_on_after(0.2) as waited:
                await third.receive_some(1)
            assert waited.cancelled_caught
            await second.stream.aclose()
            assert (await rest_of(third)).startswith(b"HTTP/1.1 200")


async def test_who_only_holds_connections_open_does_not_keep_others_out() -> None:
    async with served(GatewaySettings(connections_max=2)) as server:
        host, port = server.bound.host, server.bound.port
        async with (
            await trio.open_tcp_stream(host, port) as first,
            await trio.open_tcp_stream(host, port),
        ):
            await until(lambda: " 2 connections" in server.gateway)
            assert (await raw(server.bound, REQUEST)).startswith(b"HTTP/1.1 200")
            assert await rest_of(first) == b""


async def test_one_stream_more_than_allowed_is_refused() -> None:
    async with (
        served(GatewaySettings(streams_max=1)) as server,
        events_of(server.bound, "/v1/stream"),
    ):
        second = await server.http.get("/v1/stream")
        assert second.status_code == 429
        assert second.json()["code"] == "limit-exceeded"


@pytest.mark.parametrize(("count", "status"), [(999, 200), (1_000, 200), (1_001, 413)])
async def test_a_batch_is_taken_up_to_its_limit(count: int, status: int) -> None:
    async with served() as server:
        body = {"run_ids": ["run_none"] * count, "control": {"command": "resume"}}
        answer = await server.http.post("/v1/runs/bulk", json=body)
        assert answer.status_code == status


# --- Clients that never read ----------------------------------------------------------------------


@asynccontextmanager
async def _never_reading(server: Served, request: bytes) -> AsyncGenerator[trio.SocketStream]:
    """Send a request with a receive buffer of the smallest size, and read nothing."""
    sock = trio.socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
    await sock.connect((server.bound.host, server.bound.port))
    stream = trio.SocketStream(sock)
    async with stream:
        await stream.send_all(request)
        yield stream


async def _with_large_runs(server: Served) -> bytes:
    """Start runs until a page of them is large; return the request of one of their journals."""
    run_id = await server.start("greet", name="x" * 1_900_000)
    await server.ended(run_id)
    return f"GET /v1/runs/{run_id}/journal HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()


async def test_who_does_not_read_a_large_answer_is_cut_off() -> None:
    async with served(GatewaySettings(send_timeout_s=0.3)) as server:
        request = await _with_large_runs(server)
        async with _never_reading(server, request):
            await until(lambda: " 2 connections" in server.gateway)
            await until(lambda: " 1 connections" in server.gateway)


async def test_a_stop_is_in_time_whatever_clients_do() -> None:
    """Clients that never read an answer or a stream, send half a request, or only connect."""
    settings = GatewaySettings(stop_grace_s=0.5)
    async with served(settings) as server:
        request = await _with_large_runs(server)
        live = b"GET /v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n"
        async with (
            _never_reading(server, request),
            _never_reading(server, live),
            _never_reading(server, b""),
            _never_reading(server, b"GET /v1/stre"),
            _never_reading(server, HEAD.encode() + b"Content-Length: 9\r\n\r\n{"),
        ):
            await until(lambda: " 6 connections" in server.gateway)
            for _ in range(40):
                await server.start("greet", name="x" * 10_000)
            started = trio.current_time()
            await server.runtime.system.root.stop_child("gateway")
            assert trio.current_time() - started < 1.5


async def test_a_stop_lets_a_request_in_work_finish_and_ends_what_waits() -> None:
    async with served() as server:
        run_id = await server.start()
        await server.parked(run_id)
        found: list[tuple[str, int]] = []

        async with trio.open_nursery() as nursery:

            async def poll() -> None:
                answer = await server.http.get(f"/v1/runs/{run_id}/result?wait=60")
                found.append(("poll", answer.status_code))

            async def stream() -> None:
                answer = await server.http.get(f"/v1/runs/{run_id}/stream")
                assert '"reason":"closing"' in answer.text
                found.append(("stream", answer.status_code))

            nursery.start_soon(poll)
            nursery.start_soon(stream)
            await until(lambda: " 2 connections" in server.gateway)
            started = trio.current_time()
            await server.runtime.system.root.stop_child("gateway")
            assert trio.current_time() - started < 1
        assert sorted(found) == [("poll", 503), ("stream", 200)]


# --- Failures -------------------------------------------------------------------------------------


async def test_a_gateway_that_fails_is_restarted_on_the_same_port(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as server:
        assert (await server.http.get("/healthz")).status_code == 200

        async def broken(_self: trio.SocketListener) -> trio.SocketStream:
            raise OSError(errno.EIO, "the network card is on fire")

        with monkeypatch.context() as patch:
            patch.setattr(trio.SocketListener, "accept", broken)
            async with await trio.open_tcp_stream(server.bound.host, server.bound.port) as stream:
                await rest_of(stream)
        await until(lambda: server.runtime.tree().children[-1].restarts == 1)
        answer = await raw(server.bound, REQUEST)
        assert answer.startswith(b"HTTP/1.1 200")
        assert "on fire" in caplog.text


async def test_no_file_descriptor_left_is_waited_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with served() as server:
        accept = trio.SocketListener.accept
        failures = [OSError(errno.EMFILE, "too many open files")]

        async def short_of_files(self: trio.SocketListener) -> trio.SocketStream:
            stream = await accept(self)
            if failures:
                await stream.aclose()
                raise failures.pop()
            return stream

        monkeypatch.setattr(trio.SocketListener, "accept", short_of_files)
        for _ in range(
            2
        ):  # the one that waits in the real `accept` already, and the one that fails
            await raw(server.bound, REQUEST)
        assert (await raw(server.bound, REQUEST)).startswith(b"HTTP/1.1 200")
        assert "too many open files" in caplog.text
        assert server.runtime.tree().children[-1].restarts == 0


async def test_a_server_whose_database_does_not_answer_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with served() as server:

        async def silent(_self: object) -> int:
            await trio.sleep_forever()
            raise AssertionError

        monkeypatch.setattr(type(server.runtime.storage), "size_bytes", silent)
        answer = await server.http.get("/readyz")
        assert answer.status_code == 503
        assert "storage" in answer.json()["problems"]
        assert (await server.http.get("/healthz")).status_code == 200

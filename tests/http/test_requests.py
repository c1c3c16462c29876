"""Requests over HTTP: what is done again, what is not, and what the caller is told."""

from __future__ import annotations

import asyncio
import logging
import ssl
from itertools import pairwise
from typing import Any

import httpx
import pytest
import trio

from aiki_sdk import (
    AikiError,
    Client,
    Event,
    InvalidRequest,
    LimitExceeded,
    NotFound,
    ReferenceConflict,
    Run,
    RunEnded,
    Unauthorized,
    Unavailable,
    workflow,
)
from aiki_sdk.http import HttpPort, HttpSettings
from tests.unit.sdk.fake_server import QUICK, URL, FakeServer, Fault, problem

ping = Event("ping", int)
KEY = "aiki_secret_0123456789"


@workflow("greet", "1.0.0", events=[ping])
async def greet(run: Run, name: str) -> str:
    return f"hello {name}"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(server: FakeServer) -> Client:
    return Client(server.client_port())


LOST = Fault("/runs", error=httpx.ReadError, after=True)
UNREACHED = Fault("/runs", error=httpx.ConnectError)


# --- What is done again ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        UNREACHED,
        LOST,
        Fault("/runs", error=httpx.ReadTimeout, after=True),
        Fault("/runs", error=httpx.RemoteProtocolError, after=True),
        Fault("/runs", answer=httpx.Response(502), after=True),
        Fault("/runs", answer=problem(Unavailable("the storage is away"))),
    ],
    ids=["unreached", "lost", "late", "cut", "proxy", "unavailable"],
)
async def test_a_start_whose_answer_was_lost_is_made_once(
    server: FakeServer, client: Client, fault: Fault, autojump_clock: trio.testing.MockClock
) -> None:
    """The client names each start itself, so that the server recognises the repetition."""
    server.planned(fault)

    handle = await client.start(greet, "Ada")

    assert server.requests == ["POST /v1/runs", "POST /v1/runs"]
    assert len(set(server.keys)) == 1
    assert list(server.port.runs) == [handle.id]


async def test_every_start_has_a_key_of_its_own(server: FakeServer, client: Client) -> None:
    first, second = await client.start(greet, "Ada"), await client.start(greet, "Ada")

    assert first.id != second.id
    assert len(set(server.keys)) == 2


async def test_a_start_with_a_reference_id_needs_no_other_name(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    server.planned(LOST)

    handle = await client.start(greet, "Ada", reference_id="r-1")

    assert server.keys == []
    assert list(server.port.runs) == [handle.id]


async def test_a_start_that_would_restart_an_ended_run_is_not_repeated_blindly(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    server.planned(LOST)

    with pytest.raises(Unavailable, match="lost"):
        await client.start(greet, "Ada", reference_id="r-1", on_conflict="restart_if_ended")
    assert len(server.requests) == 1

    server.planned(UNREACHED)
    await client.start(greet, "Ada", reference_id="r-1", on_conflict="restart_if_ended")
    assert len(server.requests) == 3, "what cannot have happened is repeated"


async def test_a_batch_whose_answer_was_lost_starts_each_run_once(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    server.planned(Fault("/batch", error=httpx.ReadError, after=True))

    handles = await client.start_many([(greet, "Ada"), (greet, "Ada")])

    assert [handle.id for handle in handles] == list(server.port.runs)


async def test_many_starts_go_in_bodies_that_a_server_takes(
    server: FakeServer, client: Client
) -> None:
    """Four inputs of one MiB each make more than one request, and one of two MiB makes one."""
    large, largest = "x" * 1_000_000, "x" * 2_000_000

    await client.start_many([(greet, large)] * 4 + [(greet, largest)])

    assert len(server.port.runs) == 5
    sizes = [len(request.content) for request in server.seen]
    assert len(sizes) == 3
    assert max(sizes) < 4 * 1024 * 1024


async def test_an_event_whose_receipt_was_lost_is_sent_once(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await client.start(greet, "Ada")
    server.planned(Fault("/events/ping", error=httpx.ReadError, after=True))

    receipt = await handle.send(ping, 1)

    assert len(server.port.sent) == 1
    assert receipt.seq == 3


async def test_an_event_to_many_runs_whose_receipts_were_lost_is_sent_once_to_each(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    ids = [(await client.start(greet, name)).id for name in ("Ada", "Ben")]
    server.planned(Fault("/bulk", error=httpx.ReadError, after=True))

    outcomes = await client.multicast(ping, 1, run_ids=ids)

    assert [outcome.ok for outcome in outcomes] == [True, True]
    assert [run_id for run_id, _ in server.port.sent] == ids


@pytest.mark.parametrize("command", ["cancel", "pause", "resume", "terminate"])
async def test_a_command_of_which_twice_is_once_is_repeated(
    server: FakeServer, client: Client, command: str, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await client.start(greet, "Ada")
    server.planned(Fault(f"/{command}", error=httpx.ReadError))

    await getattr(handle, command)()

    assert [request.command for _, request in server.port.controls] == [command]


@pytest.mark.parametrize("command", ["wake", "retry", "requeue"])
async def test_a_command_of_which_twice_is_twice_is_not_repeated(
    server: FakeServer, client: Client, command: str
) -> None:
    handle = await client.start(greet, "Ada")
    server.planned(Fault(f"/{command}", error=httpx.ReadError))

    with pytest.raises(Unavailable):
        await getattr(handle, command)()

    assert server.port.controls == []


async def test_a_fork_whose_answer_was_lost_is_not_repeated(
    server: FakeServer, client: Client
) -> None:
    handle = await client.start(greet, "Ada")
    server.planned(Fault("/fork", error=httpx.ReadError, after=True))

    with pytest.raises(Unavailable, match="lost"):
        await handle.fork(at=1)

    assert len(server.port.forks) == 1


async def test_too_many_requests_is_repeated_always_and_after_the_time_that_is_asked(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    """Who was refused for a rate's sake was not served, so even a fork is asked for again."""
    handle = await client.start(greet, "Ada")
    refusal = problem(LimitExceeded("requests a second", 100, 101, "wait"), **{"retry-after": "7"})
    server.planned(Fault("/fork", answer=httpx.Response(429, headers=refusal.headers)))

    await handle.fork(at=1)

    assert 7 <= trio.current_time() < 8


@pytest.mark.parametrize(
    ("retry_after", "date", "expected_s"),
    [
        ("Wed, 21 Oct 2026 07:28:05 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 5),
        ("Wed, 21 Oct 2026 07:28:05 GMT", "Wed, 21 Oct 2026 09:00:00 GMT", 0),
        ("Wed, 21 Oct 2026 07:28:05 GMT", "", 0),
        ("soon", "", 0),
        ("-5", "", 0),
    ],
)
async def test_a_retry_after_is_seconds_or_a_date_by_the_servers_clock(
    server: FakeServer,
    client: Client,
    retry_after: str,
    date: str,
    expected_s: float,
    autojump_clock: trio.testing.MockClock,
) -> None:
    headers = {"retry-after": retry_after, "date": date}
    server.planned(Fault("/health", answer=httpx.Response(503, headers=headers)))

    await client.health()

    assert expected_s <= trio.current_time() <= expected_s + 0.2


async def test_a_server_that_asks_for_more_patience_than_there_is_is_not_waited_for(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    busy = httpx.Response(503, headers={"retry-after": "3600"})
    server.planned(Fault("/health", answer=busy))

    with pytest.raises(Unavailable):
        await client.health()
    assert trio.current_time() == 0


async def test_pauses_grow_are_bounded_and_end(autojump_clock: trio.testing.MockClock) -> None:
    settings = HttpSettings(attempts_max=6, backoff_s=1.0, backoff_max_s=4.0)
    times: list[float] = []

    class Noting(FakeServer):
        async def handle(self, request: httpx.Request) -> httpx.Response:
            times.append(trio.current_time())
            return await super().handle(request)

    server = Noting().planned(*[Fault("/health", error=httpx.ConnectError)] * 6)
    with pytest.raises(Unavailable, match=r"no server answers at .*aiki\.test.*aiki server"):
        await Client(server.client_port(settings)).health()

    pauses = [second - first for first, second in pairwise(times)]
    for pause, longest in zip(pauses, [1, 2, 4, 4, 4], strict=True):
        assert longest / 2 <= pause <= longest


async def test_a_wait_for_a_result_outlasts_a_server_that_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """More failures in a row than any other request is allowed, within `reconnect_s`."""
    server = FakeServer()
    handle = await Client(server.client_port()).start(greet, "Ada")
    server.planned(*[Fault("/result", error=httpx.ConnectError)] * 15)
    server.port.complete(handle.id, "hello Ada")

    assert await handle.result() == "hello Ada"

    server.planned(*[Fault("/result", error=httpx.ConnectError)] * 1_000)
    began = trio.current_time()
    with pytest.raises(Unavailable):
        await handle.result()
    assert QUICK.reconnect_s - 1 <= trio.current_time() - began <= QUICK.reconnect_s


async def test_a_wait_that_is_limited_does_not_outlast_its_limit(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await client.start(greet, "Ada")
    server.planned(*[Fault("/result", error=httpx.ConnectError)] * 1_000)

    with pytest.raises(Unavailable):
        await handle.result(timeout=3)

    assert trio.current_time() <= 3


async def test_a_result_is_asked_for_rarely_and_comes_at_once(
    server: FakeServer, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    """Ten minutes are twenty long polls, and the answer is pushed through the last one."""
    handle = await client.start(greet, "Ada")

    async def end() -> None:
        await trio.sleep(599)
        server.port.complete(handle.id, "hello Ada")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end)
        assert await handle.result() == "hello Ada"

    assert trio.current_time() == 599
    assert len(server.waits) == 20
    assert {float(wait) for wait in server.waits} == {30.0}


# --- What the caller is told ----------------------------------------------------------------------


async def test_errors_are_those_of_a_client_in_the_servers_process(
    server: FakeServer, client: Client
) -> None:
    handle = await client.start(greet, "Ada", reference_id="r-1")
    with pytest.raises(ReferenceConflict, match="r-1"):
        await client.start(greet, "Ben", reference_id="r-1")
    with pytest.raises(NotFound, match="run_9"):
        await client.get("run_9")
    server.port.complete(handle.id)
    with pytest.raises(RunEnded) as ended:
        await handle.send(ping, 1)
    assert ended.value.status == "completed"


async def test_an_answer_that_is_not_ours_is_named(server: FakeServer, client: Client) -> None:
    def answers(status: int, **kwargs: Any) -> None:
        server.planned(Fault("/health", answer=httpx.Response(status, **kwargs)))

    answers(200, html="<h1>Welcome to nginx!</h1>")
    with pytest.raises(Unavailable, match=r"text/html.*not JSON.*Aiki server"):
        await client.health()
    answers(200, json={"status": "splendid"})
    with pytest.raises(Unavailable, match="does not understand"):
        await client.health()
    answers(404)
    with pytest.raises(InvalidRequest, match=r"no such route.*GET /v1/health"):
        await client.health()
    answers(308, headers={"location": "https://aiki.test/"})
    with pytest.raises(InvalidRequest, match=r"redirects to https://aiki\.test/; use that URL"):
        await client.health()
    answers(500)
    with pytest.raises(Unavailable, match="answered 500"):
        await client.health()
    assert len(server.requests) == 5, "none of these is asked twice"


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_that_does_not_open_is_unauthorized(
    server: FakeServer, client: Client, status: int
) -> None:
    server.planned(Fault("/health", answer=httpx.Response(status)))

    with pytest.raises(Unauthorized, match="api_key"):
        await client.health()


async def test_a_certificate_that_is_not_trusted_is_named_and_not_tried_again(
    server: FakeServer, client: Client
) -> None:
    def untrusted(message: str) -> Exception:
        error = httpx.ConnectError(message)
        error.__cause__ = ssl.SSLCertVerificationError(1, "certificate verify failed")
        return error

    server.planned(Fault("/health", error=untrusted))

    with pytest.raises(Unavailable, match=r"certificate of .* is not trusted.*verify="):
        await client.health()
    assert len(server.requests) == 1


async def test_a_closed_client_says_so(server: FakeServer) -> None:
    async with Client(server.client_port()) as client:
        handle = await client.start(greet, "Ada")

    with pytest.raises(Unavailable, match="closed"):
        await handle.status()
    with pytest.raises(Unavailable, match="closed"):
        await anext(handle.updates())


# --- Where to, and as whom ------------------------------------------------------------------------


async def test_a_request_says_who_asks_and_in_which_namespace(server: FakeServer) -> None:
    client = Client(server.client_port(api_key=KEY, namespace="orders"))

    await client.health()

    headers = server.seen[0].headers
    assert headers["authorization"] == f"Bearer {KEY}"
    assert headers["aiki-namespace"] == client.namespace == "orders"


async def test_the_key_is_never_shown(server: FakeServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    port = server.client_port(api_key=KEY)
    client = Client(port)
    server.planned(
        Fault("/health", error=httpx.ConnectError),
        Fault("/health", answer=httpx.Response(401)),
    )
    with pytest.raises(Unauthorized) as refused:
        await client.health()

    shown = [repr(port), repr(client), repr(client._port), str(refused.value), caplog.text]
    shown += [repr(refused.value.__cause__), repr(server.seen), repr(server.seen[0].headers)]
    assert not any(KEY in text for text in shown)
    assert client.api_key == KEY


def test_a_client_says_where_it_leads() -> None:
    client = Client("http://localhost:9850/", namespace="orders", api_key=KEY)
    assert (client.url, client.api_key) == ("http://localhost:9850", KEY)
    assert repr(client) == "<client of namespace 'orders' at http://localhost:9850>"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("localhost:9850", r"http:// or https://"),
        ("", r"http:// or https://"),
        ("ftp://host", r"http:// or https://"),
        ("http://", r"http:// or https://"),
        ("http://host?x=1", r"leave out what follows"),
        ("http://host:99999999", r"from 1 to 65535"),
        ("http://user:sesame@host", r"api_key="),
    ],
)
def test_a_url_that_is_none_is_refused(url: str, complaint: str) -> None:
    with pytest.raises(InvalidRequest, match=complaint) as refused:
        Client(url)
    assert "sesame" not in str(refused.value)


@pytest.mark.parametrize("key", ["", "with blank", "new\nline", "ключ-secret", 5])
def test_a_key_that_no_header_can_carry_is_refused_without_being_told(key: Any) -> None:
    with pytest.raises(InvalidRequest, match="api_key") as refused:
        Client(URL, api_key=key)
    assert not key or str(key) not in str(refused.value)


def test_what_goes_with_a_url_does_not_go_with_a_port(server: FakeServer) -> None:
    with pytest.raises(InvalidRequest, match="api_key= goes with a URL"):
        Client(server.port, api_key=KEY)
    with pytest.raises(InvalidRequest, match="http= goes with a URL"):
        Client(server.port, http=HttpSettings())


@pytest.mark.parametrize(
    "settings",
    [{"timeout_s": 0}, {"connections_max": 0}, {"poll_s": 61}, {"attempts_max": True}],
)
def test_settings_that_are_not_valid_are_named(settings: Any) -> None:
    (name,) = settings
    with pytest.raises(InvalidRequest, match=name):
        HttpSettings(**settings)


@pytest.mark.parametrize("name", ["a/b", "a b", "ä?#%2F"])
async def test_what_a_caller_names_stays_one_segment_of_the_path(
    server: FakeServer, client: Client, name: str
) -> None:
    with pytest.raises(NotFound):
        await client.get(name)
    (path,) = [request.url.raw_path for request in server.seen]
    assert path.count(b"/") == 3


# --- Under asyncio --------------------------------------------------------------------------------


def test_requests_are_repeated_under_asyncio_too() -> None:
    async def main() -> None:
        server = FakeServer().planned(LOST)
        settings = HttpSettings(backoff_s=0.001)
        async with Client(server.client_port(settings)) as client:
            handle = await client.start(greet, "Ada")
            server.port.complete(handle.id, "hello Ada")
            assert await handle.result(timeout=5) == "hello Ada"
            assert list(server.port.runs) == [handle.id]

    asyncio.run(main())


def test_a_port_is_of_use_without_a_client() -> None:
    port = HttpPort.to(URL)
    assert (port.url, port.namespace, port.api_key) == (URL, "default", None)


async def test_an_error_of_a_newer_server_is_still_an_error(
    server: FakeServer, client: Client
) -> None:
    class Newer(AikiError):
        code = "of-tomorrow"

    server.planned(Fault("/health", answer=problem(Newer("too early"))))

    with pytest.raises(AikiError, match="too early") as raised:
        await client.health()
    assert raised.value.details["code"] == "of-tomorrow"

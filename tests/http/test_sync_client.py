"""`SyncClient`: what `Client` does, in plain calls, in any thread."""

from __future__ import annotations

import inspect
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from aiki_sdk import (
    BulkOutcome,
    Client,
    Event,
    InvalidRequest,
    NotFound,
    Question,
    ReferenceConflict,
    ResultTimeout,
    Run,
    RunCancelled,
    RunHandle,
    SyncClient,
    SyncRunHandle,
    Unavailable,
    workflow,
)
from aiki_sdk.client import Starter, SyncStarter
from aiki_sdk.client._stepping import run_plain
from aiki_sdk.http import HttpSettings
from tests.unit.sdk.fake_port import FakePort
from tests.unit.sdk.fake_server import FakeServer, Fault

ping = Event("ping", int)
approve = Question("approve", int, bool)
FAST = HttpSettings(backoff_s=0.001)


@workflow("greet", "1.0.0", events=[ping], questions=[approve])
async def greet(run: Run, name: str) -> tuple[str, ...]:
    return ("hello", name)


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def client(server: FakeServer) -> SyncClient:
    return server.plain_client(FAST)


def test_a_run_is_started_talked_to_and_waited_for(server: FakeServer, client: SyncClient) -> None:
    handle = client.start(greet, "Ada", reference_id="r-1", labels={"team": "red"})
    assert handle.status() == "queued"
    assert handle.send(ping, 1).seq == 3
    assert handle.send("ping", 2, reference_id="p-2").seq == 4
    handle.pause("lunch")
    handle.resume()
    handle.wake("nap")
    server.port.record(handle.id, "value-published", key="progress", value=3)
    server.port._change(handle.id, values={"progress": 3})
    assert handle.value("progress", int) == 3
    assert handle.value("nothing", int, default=None) is None
    server.port.complete(handle.id, ["hello", "Ada"])

    assert handle.result() == ("hello", "Ada")
    assert handle.wait("completed") == "completed"
    assert [entry.seq for entry in handle.history()] == [1, 2, 3, 4, 5, 6]
    assert handle.info().reference_id == "r-1"
    assert [request.command for _, request in server.port.controls] == ["pause", "resume", "wake"]


def test_errors_are_those_of_the_client(server: FakeServer, client: SyncClient) -> None:
    handle = client.start(greet, "Ada", reference_id="r-1")
    with pytest.raises(ReferenceConflict):
        client.start(greet, "Ben", reference_id="r-1")
    with pytest.raises(NotFound):
        client.get("run_9")
    with pytest.raises(ResultTimeout):
        handle.result(timeout=0)
    handle.cancel("no more")
    with pytest.raises(RunCancelled, match="no more"):
        handle.result()


def test_updates_and_values_are_plain_iterators(server: FakeServer, client: SyncClient) -> None:
    handle = client.start(greet, "Ada")
    for number in range(4):
        server.port.record(handle.id, "value-published", key="progress", value=number)
    server.port.complete(handle.id)
    server.stream_cut = (2, "slow")

    with handle.updates() as updates:
        assert [update.seq for update in updates] == list(range(1, 8))
        assert updates.last_seq == 7
    for update in handle.updates(after=3):
        assert update.seq == 4
        break
    assert list(handle.watch("progress")) == []
    assert list(handle.updates(after=7)) == []


def test_runs_are_found_listed_and_counted(server: FakeServer, client: SyncClient) -> None:
    handles = client.start_many([(greet, name) for name in ("Ada", "Ben", "Cid")])
    handles.append(client.options(labels={"team": "red"}).start(greet, "Dan"))

    assert [run.id for run in client.list(limit=2)] == [handle.id for handle in reversed(handles)]
    page = client.list(limit=3).page()
    assert (len(page.runs), page.cursor) == (3, "3")
    listed = client.list(limit=3)
    asked = len(server.requests)
    assert (listed.runs, listed.cursor) == (page.runs, "3")
    assert len(server.requests) == asked + 1, "one page is one request"
    assert client.count(labels={"team": "red"}) == 1
    assert client.get(handles[0].id, workflow=greet).id == handles[0].id
    assert client.health().ok
    assert [known.name for known in client.workflows()] == ["greet"]
    spec = client.options(reference_id="r").spec(greet, "Eve")
    assert len(client.start_many([spec, spec], return_errors=True)) == 2


def test_many_runs_are_told_at_once(server: FakeServer, client: SyncClient) -> None:
    ids = [client.start(greet, name).id for name in ("Ada", "Ben")]
    sent = client.multicast(ping, 1, run_ids=[*ids, "run_9"])
    assert [outcome.ok for outcome in sent] == [True, True, False]
    done: list[BulkOutcome] = client.bulk("cancel", reason="over", workflow=greet)
    assert [outcome.run_id for outcome in done] == list(reversed(ids))
    handle = client.send_or_start(greet, ("Ada",), ping, 2, reference_id="r-1")
    assert handle.id == "run_3"


def test_what_was_lost_on_the_way_is_done_again(server: FakeServer, client: SyncClient) -> None:
    server.planned(Fault("/runs", error=httpx.ReadError, after=True))

    handle = client.start(greet, "Ada")

    assert list(server.port.runs) == [handle.id]


def test_leaving_the_block_closes_the_client(server: FakeServer) -> None:
    with server.plain_client() as client:
        handle = client.start(greet, "Ada")
    with pytest.raises(Unavailable, match="closed"):
        handle.status()


def test_threads_share_a_client(server: FakeServer, client: SyncClient) -> None:
    """Sixteen threads at once; every start has a name of its own."""
    barrier = threading.Barrier(16)

    def start(number: int) -> str:
        barrier.wait()
        return client.start(greet, str(number)).id

    with ThreadPoolExecutor(16) as pool:
        ids = list(pool.map(start, range(16)))

    assert len(set(ids)) == len(set(server.keys)) == 16


def test_a_client_says_where_it_leads() -> None:
    with SyncClient("http://localhost:9850", namespace="orders", api_key="k") as client:
        assert (client.url, client.namespace, client.api_key) == (
            "http://localhost:9850",
            "orders",
            "k",
        )
        assert repr(client) == "<sync client of namespace 'orders' at http://localhost:9850>"


def test_a_port_that_needs_a_loop_is_refused_plainly() -> None:
    with pytest.raises(InvalidRequest, match="url="):
        SyncClient(FakePort())  # type: ignore[arg-type]

    async def suspends() -> None:
        class Never:
            def __await__(self) -> Any:
                yield

        await Never()

    with pytest.raises(RuntimeError, match="give it a URL"):
        run_plain(suspends())


@pytest.mark.parametrize(
    ("plain", "other", "besides"),
    [
        (SyncClient, Client, {"aclose"}),
        (SyncRunHandle, RunHandle, set[str]()),
        (SyncStarter, Starter, set[str]()),
    ],
)
def test_nothing_is_missing(plain: type, other: type, besides: set[str]) -> None:
    """Every public method and attribute of the client has its plain twin of the same name."""

    def public(cls: type) -> set[str]:
        return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}

    assert public(other) - public(plain) == besides

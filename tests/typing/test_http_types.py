"""What type checkers see of clients with a URL: as much as of those in the server's process.

Read by mypy and pyright like `test_sdk_types`, and run too, over a server without a socket.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, assert_type

import pytest
from attrs import frozen

from aiki_sdk import (
    AikiError,
    BulkOutcome,
    Client,
    Event,
    JournalEntry,
    Question,
    Run,
    RunPage,
    RunStatus,
    RunSummary,
    SyncClient,
    SyncRunHandle,
    Update,
    workflow,
)
from aiki_sdk.client import (
    AllUpdates,
    StartSpec,
    SyncRunList,
    SyncStarter,
    SyncStream,
    SyncUpdates,
    SyncValueWatch,
)
from aiki_sdk.http import HttpSettings
from tests.unit.sdk.fake_server import FakeServer


@frozen
class Order:
    id: str


paid = Event("paid", int)
ping = Event("ping")
approve = Question("approve", Order, bool)


@workflow("order-processing", "1.0.0", events=[paid, ping], questions=[approve])
async def process_order(run: Run, order: Order, express: bool = False) -> str:
    return order.id


@workflow("nightly", "1.0.0")
async def nightly(run: Run) -> None: ...


ORDER = Order("o-1")


def client() -> SyncClient:
    return FakeServer().plain_client()


def test_a_client_takes_a_url_and_what_goes_with_it() -> None:
    made = Client("http://localhost:9850", api_key="k", namespace="n", http=HttpSettings())
    assert_type(made.url, str | None)
    assert_type(made.api_key, str | None)
    assert_type(made.updates(workflow=process_order, status="failed"), AllUpdates)
    plain = SyncClient("http://localhost:9850", api_key="k", http=HttpSettings(poll_s=10))
    assert_type(plain.url, str)
    assert_type(plain.updates(run_ids=["a"], workflow=[process_order, "x"]), SyncStream[Update])


def test_plain_starts_check_arguments_and_know_results() -> None:
    plain = client()
    assert_type(plain.start(process_order, ORDER), SyncRunHandle[str])
    assert_type(plain.start(process_order, order=ORDER, express=True), SyncRunHandle[str])
    assert_type(
        plain.start(process_order, ORDER, True, delay=timedelta(hours=1)), SyncRunHandle[str]
    )
    assert_type(plain.start(nightly, labels={"a": "b"}), SyncRunHandle[None])
    assert_type(plain.start("by-name", {"n": 1}, version="1.0.0"), SyncRunHandle[Any])
    starter = plain.options(priority="high")
    assert_type(starter, SyncStarter)
    assert_type(starter.start(process_order, ORDER, express=True), SyncRunHandle[str])
    assert_type(starter.spec(nightly), StartSpec[None])
    assert_type(plain.start_many([(nightly,)]), list[SyncRunHandle[Any]])
    assert_type(
        plain.start_many([(nightly,)], return_errors=True), list[SyncRunHandle[Any] | AikiError]
    )
    with pytest.raises(TypeError):
        plain.start(process_order)  # type: ignore[arg-type]
    with pytest.raises(AikiError):
        plain.start(process_order, 5)  # type: ignore[misc]


def test_plain_handles_know_what_they_give() -> None:
    plain = client()
    handle = plain.start(process_order, ORDER)
    assert_type(handle.status(), RunStatus)
    assert_type(handle.history(), list[JournalEntry])
    assert_type(handle.updates(), SyncUpdates)
    assert_type(iter(handle.updates()), Iterator[Update])
    assert_type(handle.watch("n", int), SyncValueWatch[int])
    assert_type(handle.value("n", int, default=None), int | None)
    assert_type(handle.fork(at=1), SyncRunHandle[str])
    assert_type(plain.get(handle.id, workflow=process_order), SyncRunHandle[str])
    assert_type(plain.get(handle.id), SyncRunHandle[Any])
    handle.send(paid, 5)
    handle.send(ping)
    with pytest.raises(AikiError):
        handle.send(paid, "five")  # type: ignore[misc]

    def waits() -> None:
        assert_type(handle.result(), str)
        assert_type(handle.ask(approve, ORDER, timeout=5), bool)
        assert_type(handle.wait("completed"), RunStatus)

    assert callable(waits)


def test_plain_lists_are_of_runs() -> None:
    plain = client()
    assert_type(plain.list(), SyncRunList)
    assert_type(plain.list().page(), RunPage)
    assert_type(list(plain.list(status="failed")), list[RunSummary])
    assert_type(plain.count(workflow=process_order), int)
    assert_type(plain.bulk("cancel", workflow=process_order), list[BulkOutcome])

"""Finding runs: by id, by reference, by filters; and the server's own state."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import trio
import trio.testing

from aiki_sdk import (
    Client,
    InvalidRequest,
    NotFound,
    Run,
    RunStatus,
    SyncClient,
    Unavailable,
    workflow,
)
from aiki_sdk.protocol import HealthStatus, RunPage, RunQuery, StartRequest
from tests.unit.sdk.fake_port import EPOCH, FakePort
from tests.unit.sdk.fake_server import client_over


@workflow("count-up", "1.0.0")
async def count_up(run: Run, to: int) -> tuple[int, ...]:
    return tuple(range(to))


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture(params=["here", "http"])
def client(port: FakePort, request: pytest.FixtureRequest) -> Client:
    return client_over(port, request.param)


async def start_some(client: Client, number: int) -> None:
    for index in range(number):
        await client.start(count_up, index)


# --- One ------------------------------------------------------------------------------------------


async def test_a_run_is_found_by_its_id(client: Client) -> None:
    started = await client.start(count_up, 3)

    found = await client.get(started.id)

    assert found.id == started.id
    assert (await found.info()).workflow == "count-up"


async def test_a_run_is_found_by_workflow_and_reference(port: FakePort, client: Client) -> None:
    started = await client.start(count_up, 3, reference_id="r-1")
    port.complete(started.id, [0, 1, 2])

    by_code = await client.get(workflow=count_up, reference_id="r-1")
    by_name = await client.get(workflow="count-up", reference_id="r-1")

    assert by_code.id == by_name.id == started.id
    assert await by_code.result() == (0, 1, 2)
    assert await by_name.result() == [0, 1, 2]


async def test_a_client_that_knows_the_workflow_converts_results_by_id(port: FakePort) -> None:
    client = Client(port, workflows=[count_up])
    started = await client.start("count-up", to=2)
    port.complete(started.id, [0, 1])

    assert await started.result() == (0, 1)
    assert await (await client.get(started.id)).result() == (0, 1)


async def test_an_unknown_run_is_not_found(client: Client) -> None:
    with pytest.raises(NotFound, match="run_9"):
        await client.get("run_9")
    with pytest.raises(NotFound, match="r-9"):
        await client.get(workflow=count_up, reference_id="r-9")


async def test_a_run_of_another_workflow_is_refused(client: Client) -> None:
    other = await client.start("greet", name="Ada")

    with pytest.raises(InvalidRequest, match=r"'count-up'.*is a run of 'greet'"):
        await client.get(other.id, workflow=count_up)


@pytest.mark.parametrize(
    "which",
    [
        {},
        {"workflow": "count-up"},
        {"reference_id": "r-1"},
        {"run_id": "run_1", "reference_id": "r-1"},
        {"run_id": ""},
        {"run_id": 5},
        {"workflow": 5, "reference_id": "r-1"},
    ],
)
async def test_it_must_be_said_which_run_is_meant(client: Client, which: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest, match="not valid"):
        await client.get(**which)


# --- Many -----------------------------------------------------------------------------------------


async def test_awaiting_a_list_gives_one_page_and_its_cursor(client: Client) -> None:
    await start_some(client, 5)

    first = await client.list(limit=2)
    second = await client.list(limit=2, cursor=first.cursor)

    assert isinstance(first, RunPage)
    assert [run.id for run in first.runs] == ["run_5", "run_4"]
    assert [run.id for run in second.runs] == ["run_3", "run_2"]


async def test_iterating_over_a_list_reads_every_page(client: Client) -> None:
    await start_some(client, 5)
    runs = client.list(limit=2)

    assert [run.id async for run in runs] == ["run_5", "run_4", "run_3", "run_2", "run_1"]
    assert len([run async for run in runs]) == 5, "iterating again begins again"


async def test_an_empty_list_is_an_empty_page_and_no_iteration(client: Client) -> None:
    assert (await client.list()).runs == ()
    assert [run async for run in client.list()] == []


async def test_a_read_of_a_page_that_failed_can_be_repeated(port: FakePort, client: Client) -> None:
    """A connection lost between two pages loses no row and repeats none."""
    await start_some(client, 3)
    runs = aiter(client.list(limit=2))
    seen = [(await anext(runs)).id, (await anext(runs)).id]
    port.down = Unavailable("gone")

    with pytest.raises(Unavailable):
        await anext(runs)
    port.down = None
    seen.append((await anext(runs)).id)

    assert seen == ["run_3", "run_2", "run_1"]


async def test_all_filters_must_hold(port: FakePort, client: Client) -> None:
    await client.start(count_up, 1, labels={"team": "a", "env": "prod"}, reference_id="r-1")
    await client.start(count_up, 2, labels={"team": "a"})
    await client.start("greet", name="Ada")
    port.complete("run_2")

    async def ids(**filters: Any) -> list[str]:
        return [run.id async for run in client.list(**filters)]

    assert await ids(workflow=count_up) == ["run_2", "run_1"]
    assert await ids(workflow="count-up", status="queued") == ["run_1"]
    assert await ids(status=[RunStatus.COMPLETED, "failed"]) == ["run_2"]
    assert await ids(labels={"team": "a"}) == ["run_2", "run_1"]
    assert await ids(labels={"team": "a", "env": "prod"}) == ["run_1"]
    assert await ids(reference_id="r-1", version="1.0.0") == ["run_1"]
    assert await ids(created_after=EPOCH + timedelta(seconds=1)) == ["run_3", "run_2"]
    assert await ids(created_before=EPOCH + timedelta(seconds=1)) == ["run_1"]
    assert await ids(query="Count R-1") == ["run_1"]
    assert await ids(query="greet") == ["run_3"]
    assert await ids(query="count greet") == []
    assert await client.count(workflow=count_up, status="queued") == 1
    assert await client.count() == 3


async def test_a_set_of_statuses_makes_the_same_query_every_time(client: Client) -> None:
    """The order of a set must not show, neither in what is sent nor in a cursor made of it."""
    queries: list[RunQuery] = []

    class Recorder(FakePort):
        async def count(self, query: RunQuery) -> int:
            queries.append(query)
            return 0

    recorder = Client(Recorder())
    await recorder.count(status={"failed", "queued", "stalled"})
    await recorder.count(status=["stalled", "failed", "queued", "failed"])

    assert queries[0] == queries[1]
    assert queries[0].status == (RunStatus.QUEUED, RunStatus.STALLED, RunStatus.FAILED)


async def test_schedules_are_refused_with_what_there_is(client: Client) -> None:
    with pytest.raises(InvalidRequest, match=r"no schedules; start runs with delay= or at="):
        _ = client.schedules
    with SyncClient("http://localhost:1") as plain, pytest.raises(InvalidRequest, match="delay="):
        _ = plain.schedules


async def test_times_are_asked_for_in_utc(client: Client) -> None:
    await client.start(count_up, 1)
    earlier = timezone(timedelta(hours=5))

    assert await client.count(created_after=EPOCH.astimezone(earlier)) == 1


@pytest.mark.parametrize(
    ("filters", "complaint"),
    [
        ({"limit": 501}, r"limit=501 .*1 to 500"),
        ({"limit": 0}, r"limit=0 "),
        ({"limit": True}, r"limit=True "),
        ({"status": "done"}, r"status='done'.*scheduled, queued"),
        ({"status": 5}, r"status=5 "),
        ({"workflow": 5}, r"workflow=5 .*not int"),
        ({"labels": {"a": None}}, r"labels\['a'\]=None"),
        ({"created_after": datetime(2026, 1, 1)}, r"created_after=.*aware"),  # noqa: DTZ001
        ({"query": 5}, r"query=5 .*as a str"),
        ({"query": "x" * 257}, r"query='x.*at most 256 characters"),
        ({"created_before": "today"}, r"created_before='today'"),
        ({"undeliverable": "yes"}, r"undeliverable='yes'.*True or False"),
    ],
)
def test_a_wrong_filter_is_named_with_its_value(
    client: Client, filters: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        _ = client.list(**filters)


async def test_an_unknown_filter_is_a_type_error_that_lists_the_known(client: Client) -> None:
    anything: Any = {"state": "failed"}

    with pytest.raises(TypeError, match=r"no filter 'state'; filters are .*status"):
        _ = client.list(**anything)
    with pytest.raises(TypeError, match=r"no filter 'state'"):
        await client.count(**anything)


# --- The server -----------------------------------------------------------------------------------


async def test_the_server_tells_its_health_and_workflows(client: Client) -> None:
    assert (await client.health()).status is HealthStatus.OK
    assert (await client.health()).ok
    assert [known.name for known in await client.workflows()] == ["greet"]


async def test_leaving_the_client_closes_its_port_and_runs_stay(port: FakePort) -> None:
    async with Client(port) as client:
        handle = await client.start(count_up, 1)

    assert port.closed == 1
    with pytest.raises(Unavailable):
        await handle.status()
    assert list(port.runs) == [handle.id]


def test_the_client_works_under_asyncio(port: FakePort) -> None:
    """What needs no waiting in the fake port is done without Trio, timeouts included."""

    async def main() -> tuple[int, ...]:
        async with Client(port) as client:
            handle = await client.start(count_up, 2)
            port.complete(handle.id, [0, 1])
            updates = [update.kind async for update in handle.updates()]
            assert updates == ["run-created", "run-queued", "run-completed"]
            return await handle.result(timeout=5)

    assert asyncio.run(main()) == (0, 1)


async def test_a_call_that_is_cancelled_is_cancelled(client: Client) -> None:
    """A server that never answers holds nobody: cancellation passes through the client."""

    class Hanging(FakePort):
        async def start(self, request: StartRequest) -> Any:
            await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(Client(Hanging()).start, count_up, 1)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()

    assert scope.cancelled_caught

"""One thing said to many runs: what it is said to, and what is refused for it was not meant."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from aiki_sdk import Client, Event, InvalidRequest, Run, Unavailable, workflow
from aiki_sdk.protocol import ControlRequest
from tests.unit.sdk.fake_port import FakePort
from tests.unit.sdk.fake_server import client_over

ping = Event("ping", int)


@workflow("greet", "1.0.0", events=[ping])
async def greet(run: Run, name: str) -> str:
    return name


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture(params=["here", "http"])
def client(port: FakePort, request: pytest.FixtureRequest) -> Client:
    return client_over(port, request.param)


@pytest.mark.parametrize(
    "filters",
    [{}, {"workflow": None}, {"status": None}, {"labels": {}}, {"status": ()}],
    ids=["none", "workflow", "status", "labels", "statuses"],
)
async def test_a_filter_that_restricts_nothing_is_refused(
    port: FakePort, client: Client, filters: Any
) -> None:
    """A variable that is None by mistake must not stop every run of the namespace."""
    await client.start(greet, "Ada")

    with pytest.raises(InvalidRequest, match="no runs"):
        await client.bulk("cancel", **filters)
    with pytest.raises(InvalidRequest, match="0 of run_ids"):
        await client.multicast(ping, 1, **filters)

    assert port.controls == []


async def test_all_runs_can_be_meant_by_their_status(port: FakePort, client: Client) -> None:
    runs = [await client.start(greet, name) for name in ("Ada", "Ben")]

    outcomes = await client.bulk("cancel", status="queued")

    assert [outcome.run_id for outcome in outcomes] == [run.id for run in reversed(runs)]


async def test_one_id_is_not_taken_for_its_characters(port: FakePort, client: Client) -> None:
    handle = await client.start(greet, "Ada")

    with pytest.raises(InvalidRequest, match="run_ids='run_1' is not valid"):
        await client.bulk("cancel", run_ids=handle.id)
    with pytest.raises(InvalidRequest, match="run_ids="):
        await client.multicast(ping, 1, run_ids=handle.id)
    with pytest.raises(InvalidRequest, match="reference_ids="):
        await client.multicast(ping, 1, reference_ids=(greet, "r-1"))
    with pytest.raises(InvalidRequest, match="reference_ids="):
        await client.multicast(ping, 1, reference_ids=(None, ["r-1"]))  # type: ignore[arg-type]

    assert port.controls == []
    assert port.sent == []


async def test_a_failure_on_the_way_leaves_nothing_to_the_garbage_collector() -> None:
    class Away(FakePort):
        async def control_many(self, run_ids: object, request: ControlRequest) -> Any:
            message = "away"
            raise Unavailable(message)

    client = Client(Away())
    await client.start(greet, "Ada")

    with pytest.raises(Unavailable):
        await client.bulk("cancel", workflow=greet)
    gc.collect()

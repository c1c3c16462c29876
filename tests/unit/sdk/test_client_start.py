"""Starting runs: what the client sends, what it refuses, and which run a start leads to."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from attrs import frozen

from aiki_sdk import (
    AikiError,
    Client,
    InvalidRequest,
    LimitExceeded,
    PayloadError,
    ReferenceConflict,
    Retry,
    Run,
    RunHandle,
    Unavailable,
    input_hash,
    workflow,
)
from aiki_sdk.protocol import BATCH_MAX, OnConflict, Priority, StartRequest
from tests.unit.sdk.fake_port import FakePort
from tests.unit.sdk.fake_server import client_over


@frozen
class Order:
    id: str
    amount: int


@workflow("order-processing", "1.0.0", pool="gpu", priority="low", timeout=60)
async def process_order(run: Run, order: Order, express: bool = False) -> str:
    return order.id


@workflow("nightly", "2.1.0", retry=Retry.fixed(max_attempts=3, delay=60))
async def nightly(run: Run) -> None: ...


@workflow("release", "1.0.0")
async def release(run: Run, version: str) -> str:
    return version


ORDER = Order("o-1", 500)
ORDER_JSON: Mapping[str, Any] = {"order": {"id": "o-1", "amount": 500}, "express": False}


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture(params=["here", "http"])
def client(port: FakePort, request: pytest.FixtureRequest) -> Client:
    return client_over(port, request.param)


# --- What is sent ---------------------------------------------------------------------------------


async def test_a_start_carries_the_workflow_its_input_and_its_own_settings(
    port: FakePort,
) -> None:
    handle = await Client(port).start(process_order, ORDER)

    assert handle.id == "run_1"
    assert port.requests == [
        StartRequest(
            workflow="order-processing",
            version="1.0.0",
            input=dict(ORDER_JSON),
            input_hash=input_hash(dict(ORDER_JSON)),
            priority=Priority.LOW,
            pool="gpu",
            retry={"kind": "never", "max_attempts": 1},
            timeout_s=60.0,
        )
    ]


async def test_options_of_a_start_go_before_the_workflows_own(
    port: FakePort, client: Client
) -> None:
    retry = Retry.exponential(max_attempts=5, base_delay=0.5)

    await client.start(
        process_order,
        ORDER,
        reference_id="order-o-1",
        on_conflict="return_existing",
        delay=timedelta(minutes=2),
        priority="high",
        pool="cpu",
        retry=retry,
        timeout=timedelta(hours=1),
        labels={"customer": "c-7"},
        version="1.0.0",
    )

    request = port.requests[0]
    assert request.reference_id == "order-o-1"
    assert request.on_conflict is OnConflict.RETURN_EXISTING
    assert request.delay_s == 120.0
    assert request.priority is Priority.HIGH
    assert request.pool == "cpu"
    assert request.retry == retry.to_json()
    assert request.timeout_s == 3600.0
    assert request.labels == {"customer": "c-7"}


async def test_a_start_time_travels_in_utc(port: FakePort, client: Client) -> None:
    berlin = timezone(timedelta(hours=2))

    await client.start(nightly, at=datetime(2026, 7, 1, 9, 0, tzinfo=berlin))

    at = port.requests[0].at
    assert at == datetime(2026, 7, 1, 7, 0, tzinfo=UTC)
    assert at is not None
    assert at.tzinfo is UTC


async def test_arguments_go_by_keyword_too(port: FakePort, client: Client) -> None:
    await client.start(process_order, order=ORDER, express=True)

    assert port.requests[0].input == {**ORDER_JSON, "express": True}


async def test_after_options_every_keyword_is_the_workflows(port: FakePort, client: Client) -> None:
    await client.options(labels={"a": "b"}, reference_id="r").start(release, version="9.9")

    assert port.requests[0].input == {"version": "9.9"}
    assert port.requests[0].version == "1.0.0"
    assert port.requests[0].labels == {"a": "b"}


# --- By name --------------------------------------------------------------------------------------


async def test_by_name_one_dict_is_the_whole_input(port: FakePort, client: Client) -> None:
    await client.start("order-processing", dict(ORDER_JSON), version="1.0.0")

    request = port.requests[0]
    assert (request.workflow, request.version) == ("order-processing", "1.0.0")
    assert request.input == ORDER_JSON
    assert request.input_hash == input_hash(dict(ORDER_JSON))
    assert (request.pool, request.priority, request.retry, request.timeout_s) == (None,) * 4


async def test_by_name_keywords_are_parameters_and_values_are_converted(
    port: FakePort, client: Client
) -> None:
    await client.start("order-processing", order=ORDER, express=False)

    assert port.requests[0].input == ORDER_JSON
    assert port.requests[0].version is None


async def test_by_name_positions_mean_nothing_without_the_code(
    port: FakePort, client: Client
) -> None:
    with pytest.raises(InvalidRequest, match=r"'order-processing' is started by name.*named too"):
        await client.start("order-processing", "o-1")
    assert port.requests == []


async def test_by_name_with_the_code_at_hand_is_the_same_start(port: FakePort) -> None:
    """Defaults are applied and the hash agrees, so that reference ids find the same run."""
    client = Client(port, workflows=[process_order])

    await client.start(process_order, ORDER)
    await client.start("order-processing", {"order": {"id": "o-1", "amount": 500}})
    await client.start("order-processing", order=ORDER)
    await client.start("order-processing", ORDER)

    assert port.requests[1:] == [port.requests[0]] * 3


async def test_by_name_with_the_code_at_hand_a_wrong_input_is_named(port: FakePort) -> None:
    client = Client(port, workflows=[process_order])

    with pytest.raises(PayloadError, match=r"no parameter 'id' \(parameters: order, express\)"):
        await client.start("order-processing", {"id": "o-1"})


# --- What is refused, before anything is sent -----------------------------------------------------


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"on_conflict": "ignore"}, r"on_conflict='ignore'.*error, return_existing, restart"),
        ({"priority": "urgent"}, r"priority='urgent'.*high, normal, low"),
        ({"delay": -1}, r"delay=-1 "),
        ({"delay": "soon"}, r"delay='soon'"),
        ({"timeout": 0}, r"timeout=0 "),
        ({"retry": 3}, r"retry=3 .*Retry\.fixed"),
        ({"at": datetime(2026, 1, 1)}, r"at=datetime.*aware datetime"),  # noqa: DTZ001
        ({"at": datetime(2026, 1, 1, tzinfo=UTC), "delay": 5}, r"at='2026.*delay is given too"),
        ({"pool": "no spaces"}, r"pool name 'no spaces'"),
        ({"reference_id": ""}, r"reference_id='' "),
        ({"reference_id": 7}, r"reference_id=7 "),
        ({"reference_id": "a\x00b"}, r"reference_id=.*NUL"),
        ({"labels": ["a"]}, r"labels=\['a'\].*dict"),
        ({"labels": {"a": 1}}, r"labels\['a'\]=1 "),
        ({"labels": {"a b": "1"}}, r"label name 'a b'"),
        ({"version": "2.0.0"}, r"version='2\.0\.0'.*'1\.0\.0'"),
    ],
)
async def test_a_wrong_option_is_named_with_its_value(
    port: FakePort, client: Client, options: Mapping[str, Any], complaint: str
) -> None:
    with pytest.raises(InvalidRequest, match=complaint):
        await client.options(**options).start(process_order, ORDER)
    assert port.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"reference_id": "x" * 257},
        {"labels": {f"n{number}": "x" for number in range(33)}},
        {"labels": {"n": "x" * 257}},
    ],
)
async def test_what_is_too_long_or_too_many_is_refused(
    client: Client, options: Mapping[str, Any]
) -> None:
    with pytest.raises(LimitExceeded):
        await client.options(**options).start(nightly)


async def test_an_unknown_option_is_a_type_error(client: Client) -> None:
    with pytest.raises(TypeError, match="referenceid"):
        client.options(referenceid="x")  # type: ignore[call-arg]


async def test_a_keyword_that_is_an_option_and_a_parameter_is_refused(
    port: FakePort, client: Client
) -> None:
    with pytest.raises(InvalidRequest, match=r"version= is an option.*client\.options"):
        await client.start(release, version="1.0.0")
    assert port.requests == []


async def test_arguments_that_do_not_fit_are_a_type_error(client: Client) -> None:
    start: Any = client.start

    with pytest.raises(TypeError, match=r"workflow 'order-processing': .*'order'"):
        await start(process_order)
    with pytest.raises(TypeError, match=r"workflow 'nightly': too many"):
        await start(nightly, 1)


async def test_a_value_that_cannot_travel_is_named_by_parameter_and_type(
    port: FakePort, client: Client
) -> None:
    start: Any = client.start

    with pytest.raises(PayloadError, match=r"order\.amount.*str"):
        await start(process_order, Order("o-1", "500"))  # type: ignore[arg-type]
    with pytest.raises(PayloadError, match=r"order: object cannot travel"):
        await start("order-processing", order=object())
    assert port.requests == []


async def test_what_is_not_a_workflow_is_refused(client: Client) -> None:
    start: Any = client.start

    with pytest.raises(InvalidRequest, match=r"pass a @workflow function.*not int"):
        await start(5)
    with pytest.raises(InvalidRequest, match=r"workflow name 'no spaces'"):
        await start("no spaces")


def test_another_namespace_than_the_ports_is_refused(port: FakePort) -> None:
    assert Client(port, namespace="default").namespace == "default"
    with pytest.raises(InvalidRequest, match=r"namespace='other'.*'default'"):
        Client(port, namespace="other")


# --- References -----------------------------------------------------------------------------------


async def test_the_same_reference_and_input_lead_to_the_same_run(client: Client) -> None:
    first = await client.start(process_order, ORDER, reference_id="o-1")
    again = await client.start(process_order, ORDER, reference_id="o-1")

    assert again.id == first.id


async def test_the_same_reference_with_another_input_is_a_conflict(client: Client) -> None:
    first = await client.start(process_order, ORDER, reference_id="o-1")
    other = Order("o-1", 501)

    with pytest.raises(ReferenceConflict):
        await client.start(process_order, other, reference_id="o-1")
    existing = await client.start(
        process_order, other, reference_id="o-1", on_conflict=OnConflict.RETURN_EXISTING
    )
    assert existing.id == first.id


async def test_an_ended_run_can_be_restarted(port: FakePort, client: Client) -> None:
    first = await client.start(process_order, ORDER, reference_id="o-1")
    port.complete(first.id, "done")

    second = await client.start(
        process_order, ORDER, reference_id="o-1", on_conflict="restart_if_ended"
    )

    assert second.id != first.id


# --- Many -----------------------------------------------------------------------------------------


async def test_many_runs_are_started_in_order_with_one_request(
    port: FakePort, client: Client
) -> None:
    handles = await client.start_many(
        [
            (process_order, ORDER),
            client.options(labels={"n": "2"}).spec(process_order, ORDER, express=True),
            ("greet", {"name": "Ada"}),
            (nightly,),
        ]
    )

    assert [handle.id for handle in handles] == ["run_1", "run_2", "run_3", "run_4"]
    assert port.batches == [4]
    assert port.requests[1].labels == {"n": "2"}
    assert [request.workflow for request in port.requests] == [
        "order-processing",
        "order-processing",
        "greet",
        "nightly",
    ]


async def test_starts_that_fail_are_raised_together_and_the_others_are_started(
    port: FakePort, client: Client
) -> None:
    await client.start(process_order, ORDER, reference_id="o-1")
    conflict = client.options(reference_id="o-1").spec(process_order, Order("o-1", 1))

    with pytest.raises(ExceptionGroup, match="1 of 2 runs were not started") as caught:
        await client.start_many([conflict, (nightly,)])

    assert isinstance(caught.value.exceptions[0], ReferenceConflict)
    assert len(port.runs) == 2


async def test_errors_can_be_returned_among_the_handles(client: Client) -> None:
    await client.start(process_order, ORDER, reference_id="o-1")
    conflict = client.options(reference_id="o-1").spec(process_order, Order("o-1", 1))

    failed, started = await client.start_many([conflict, (nightly,)], return_errors=True)

    assert isinstance(failed, ReferenceConflict)
    assert isinstance(started, RunHandle)


async def test_more_starts_than_a_batch_go_in_several(port: FakePort, client: Client) -> None:
    handles = await client.start_many([(nightly,)] * (BATCH_MAX + 1))

    assert port.batches == [BATCH_MAX, 1]
    assert handles[-1].id == f"run_{BATCH_MAX + 1}"


@pytest.mark.parametrize("item", ["nightly", (), 5, (process_order, ORDER, True, 4)])
async def test_one_malformed_item_starts_nothing(port: FakePort, client: Client, item: Any) -> None:
    with pytest.raises((InvalidRequest, TypeError)):
        await client.start_many([(nightly,), item])
    assert port.requests == []


async def test_no_items_are_no_request(port: FakePort, client: Client) -> None:
    assert await client.start_many([]) == []
    assert port.batches == []


async def test_an_unreachable_server_is_told_to_the_caller(port: FakePort, client: Client) -> None:
    port.down = Unavailable("connection refused")

    with pytest.raises(Unavailable, match="connection refused") as caught:
        await client.start(nightly)
    assert isinstance(caught.value, AikiError)
    assert caught.value.retryable

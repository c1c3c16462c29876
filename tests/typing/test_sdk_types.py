"""What type checkers see of the public surface: mypy and pyright read this file, and it runs too.

`assert_type` fails in a type checker if an inferred type is not the one that is written. A
`type: ignore` says that the line *must* be refused: both checkers report one that is not needed.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any, assert_type

import pytest
from attrs import frozen

from aiki_sdk import (
    AikiError,
    Ask,
    BulkOutcome,
    Client,
    Event,
    InvalidRequest,
    JournalEntry,
    Question,
    Retry,
    Run,
    RunHandle,
    RunPage,
    RunStatus,
    RunSummary,
    Update,
    ValueWatch,
    Workflow,
    task,
    workflow,
)
from aiki_sdk.client import StartItem, StartSpec
from tests.unit.sdk.fake_port import FakePort


@frozen
class Order:
    id: str
    amount: int


paid = Event("paid", int)
ping = Event("ping")
approve = Question("approve", Order, bool)
hurry = Question("hurry")
count_of = Question("count", answer_type=int)
tell = Question("tell", str, validator=len)


@task(retry=Retry.exponential(max_attempts=5, base_delay=0.5), timeout=30)
async def charge_card(order: Order) -> str:
    return order.id


@task
def render_invoice(order: Order, charge_id: str) -> bytes:
    return charge_id.encode()


@workflow("order-processing", "1.0.0", events=[paid])
async def process_order(run: Run, order: Order, express: bool = False) -> str:
    charge_id = await charge_card(order)
    assert_type(charge_id, str)
    assert_type(await render_invoice(order, charge_id), bytes)
    assert_type(await run.wait(paid), int)
    return charge_id


@workflow("nightly", "1.0.0")
async def nightly(run: Run) -> None: ...


@workflow("transfer", "1.0.0")
async def transfer(run: Run, source: str, target: str, amount: int, note: bytes) -> dict[str, int]:
    return {source: -amount, target: amount}


ORDER = Order("o-1", 500)


def test_definitions_keep_parameters_and_results() -> None:
    def parameters_of_a_workflow(wf: Workflow[[], None]) -> Workflow[[], None]:
        return wf

    assert_type(parameters_of_a_workflow(nightly), Workflow[[], None])
    assert_type(paid, Event[int])
    assert_type(ping, Event[None])


async def test_starts_check_arguments_and_know_results() -> None:
    client = Client(FakePort())

    assert_type(await client.start(process_order, ORDER), RunHandle[str])
    assert_type(await client.start(process_order, ORDER, True), RunHandle[str])
    assert_type(await client.start(process_order, order=ORDER, express=True), RunHandle[str])
    assert_type(await client.start(process_order, ORDER, reference_id="r"), RunHandle[str])
    assert_type(await client.start(process_order, ORDER, True, delay=5), RunHandle[str])
    assert_type(await client.start(nightly), RunHandle[None])
    assert_type(await client.start(nightly, at=None, labels={"a": "b"}), RunHandle[None])
    assert_type(
        await client.start(transfer, "a", "b", 5, b"x", timeout=timedelta(hours=1)),
        RunHandle[dict[str, int]],
    )
    assert_type(await client.start("by-name", {"n": 1}, version="1.0.0"), RunHandle[Any])
    assert_type(
        await client.options(priority="high").start(process_order, ORDER, express=True),
        RunHandle[str],
    )
    assert_type(client.options().spec(process_order, ORDER), StartSpec[str])


async def test_wrong_starts_are_refused_by_type_checkers_and_at_run_time() -> None:
    client = Client(FakePort())

    with pytest.raises(TypeError):
        await client.start(process_order)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await client.start(process_order, "o-1")  # type: ignore[misc]
    with pytest.raises(InvalidRequest):
        await client.start(process_order, "o-1", reference_id="r")  # type: ignore[call-arg, arg-type]
    with pytest.raises(TypeError):
        await client.start(nightly, ORDER, reference_id="r")  # type: ignore[call-arg]
    with pytest.raises(InvalidRequest):
        await client.options().start(process_order, ORDER, express="no")  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        await client.start(nightly, priority="urgent")  # type: ignore[call-overload]


async def test_many_starts_have_handles_or_errors() -> None:
    client = Client(FakePort())
    items: list[StartItem] = [(process_order, ORDER), client.options().spec(nightly)]

    assert_type(await client.start_many(items), list[RunHandle[Any]])
    assert_type(
        await client.start_many(items, return_errors=True), list[RunHandle[Any] | AikiError]
    )


async def test_runs_that_are_found_know_their_results_if_the_workflow_is_given() -> None:
    client = Client(FakePort())
    await client.start(process_order, ORDER, reference_id="r")

    assert_type(await client.get("run_1", workflow=process_order), RunHandle[str])
    assert_type(await client.get("run_1"), RunHandle[Any])
    assert_type(await client.get(workflow=process_order, reference_id="r"), RunHandle[str])
    assert_type(await client.get(workflow="order-processing", reference_id="r"), RunHandle[Any])
    assert_type(await client.list(status="queued", limit=5), RunPage)
    assert_type(await client.count(status=[RunStatus.FAILED]), int)
    async for run in client.list(workflow=process_order):
        assert_type(run, RunSummary)


async def test_handles_check_events_and_give_typed_results() -> None:
    port = FakePort()
    client = Client(port)
    handle = await client.start(process_order, ORDER)

    await handle.send(paid, 5)
    await handle.send("paid", 5)
    await handle.send(ping)
    with pytest.raises(InvalidRequest):
        await handle.send(paid, "5")  # type: ignore[misc]
    with pytest.raises(InvalidRequest):
        await handle.send(paid)  # type: ignore[arg-type]

    assert_type(await handle.status(), RunStatus)
    assert_type(await handle.wait("queued"), RunStatus)
    assert_type(await handle.history(), list[JournalEntry])
    port.complete(handle.id, "done")
    assert_type(await handle.result(timeout=5), str)
    async for update in handle.updates():
        assert_type(update, Update)


async def test_a_handle_of_a_narrow_result_is_one_of_a_wide_result() -> None:
    """Handles are covariant: whoever takes any outcome takes a typed handle."""

    def take(handle: RunHandle[object]) -> str:
        return handle.id

    assert take(await Client(FakePort()).start(process_order, ORDER)) == "run_1"


@workflow("talks", "1.0.0", events=[paid, ping], questions=[approve, hurry, count_of])
async def talks(run: Run, times: int) -> str:
    await run.publish("progress", times)
    await run.send("run_1", paid, 5)
    await run.send("run_1", ping)
    await run.send("run_1", paid, "5")  # type: ignore[misc]
    ask = await run.answer(approve)
    assert_type(ask, Ask[Order, bool])
    assert_type(ask.data, Order)
    await ask.answer(True)
    await ask.answer("yes")  # type: ignore[arg-type]
    await run.answer(approve, lambda order: order.amount < 5)
    await run.answer(approve, lambda order: order.id)  # type: ignore[arg-type, return-value]
    async for each in run.asks(count_of):
        assert_type(each, Ask[None, int])
        await each.answer(times)
    await run.continue_as_new(times - 1)


async def questions_and_values(client: Client) -> None:
    handle = await client.start(talks, 3)
    assert_type(await handle.ask(approve, ORDER), bool)
    assert_type(await handle.ask(approve, ORDER, timeout=5), bool)
    assert_type(await handle.ask(hurry), None)
    assert_type(await handle.ask(count_of), int)
    assert_type(await handle.ask(tell, "it"), None)
    assert_type(await handle.value("progress", int), int)
    assert_type(await handle.value("progress", int, None), int | None)
    assert_type(handle.watch("progress", int), ValueWatch[int])
    assert_type(await handle.fork(3, overrides={2: "x"}), RunHandle[str])
    found = await client.send_or_start(talks, (3,), paid, 5, reference_id="t-1")
    assert_type(found, RunHandle[str])
    assert_type(await client.multicast(paid, 5, workflow=talks), list[BulkOutcome])
    assert_type(await client.multicast(ping, run_ids=["run_1"]), list[BulkOutcome])
    assert_type(await client.bulk("cancel", workflow=talks), list[BulkOutcome])
    await client.send_or_start(talks, ("3",), paid, 5, reference_id="t-1")  # type: ignore[arg-type]

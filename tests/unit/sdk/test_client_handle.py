"""Handles: results, waiting, events and commands; and runs that go on under another id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen

from aiki_sdk import (
    Client,
    ErrorInfo,
    Event,
    IllegalTransition,
    InvalidRequest,
    NotFound,
    PayloadError,
    RecordedTypeMismatch,
    ResultTimeout,
    Run,
    RunCancelled,
    RunEnded,
    RunFailed,
    RunHandle,
    RunStatus,
    RunTerminated,
    UnknownEvent,
    workflow,
)
from aiki_sdk.protocol import ControlCommand, ControlRequest, SendRequest
from tests.unit.sdk.fake_port import FakePort
from tests.unit.sdk.fake_server import client_over


@frozen
class Payment:
    amount: int


paid = Event("paid", Payment)
ping = Event("ping")


@workflow("order-processing", "1.0.0", events=[paid, ping])
async def process_order(run: Run, order_id: str) -> Payment:
    return await run.wait(paid)


@pytest.fixture
def port() -> FakePort:
    return FakePort()


@pytest.fixture(params=["here", "http"])
def client(port: FakePort, request: pytest.FixtureRequest) -> Client:
    return client_over(port, request.param)


async def start(client: Client) -> RunHandle[Payment]:
    return await client.start(process_order, "o-1")


async def nameless(client: Client, handle: RunHandle[Any]) -> RunHandle[Any]:
    """Return a handle on the same run that does not know its workflow."""
    return await client.get(handle.id)


# --- How it is ------------------------------------------------------------------------------------


async def test_a_handle_tells_what_the_run_is_doing(port: FakePort, client: Client) -> None:
    handle = await start(client)

    assert await handle.status() is RunStatus.QUEUED
    port.record(handle.id, "run-claimed", RunStatus.RUNNING)
    assert await handle.status() == "running"
    info = await handle.info()
    assert (info.id, info.seq, info.input) == (handle.id, 3, {"order_id": "o-1"})
    assert repr(handle) == "<run run_1 of order-processing@1.0.0>"
    assert repr(await nameless(client, handle)) == "<run run_1>"


async def test_history_is_the_whole_journal_however_long(port: FakePort, client: Client) -> None:
    handle = await start(client)
    for number in range(1_100):
        port.record(handle.id, "task-succeeded", output=number)

    history = await handle.history()

    assert [entry.seq for entry in history] == list(range(1, 1_103))
    assert history[0].kind == "run-created"
    assert history[-1].body == {"output": 1_099}


# --- Results --------------------------------------------------------------------------------------


async def test_a_result_has_the_workflows_return_type(port: FakePort, client: Client) -> None:
    handle = await start(client)
    port.complete(handle.id, {"amount": 7})

    assert await handle.result() == Payment(7)
    assert await (await nameless(client, handle)).result() == {"amount": 7}


async def test_a_result_that_fits_the_type_no_more_is_named(port: FakePort, client: Client) -> None:
    handle = await start(client)
    port.complete(handle.id, {"sum": 7})

    with pytest.raises(RecordedTypeMismatch, match=r"workflow 'order-processing'.*amount"):
        await handle.result()


async def test_waiting_for_a_result_ends_with_the_run(port: FakePort, client: Client) -> None:
    handle = await start(client)
    results: list[Payment] = []

    async def wait() -> None:
        results.append(await handle.result())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        assert results == []
        port.complete(handle.id, {"amount": 7})

    assert results == [Payment(7), Payment(7)]


async def test_a_failed_run_raises_with_its_error(port: FakePort, client: Client) -> None:
    handle = await start(client)
    port.fail(handle.id, ErrorInfo("my_app.CardDeclined", "insufficient funds"))

    with pytest.raises(RunFailed, match=r"run run_1 failed: my_app\.CardDeclined") as caught:
        await handle.result()
    assert caught.value.error == ErrorInfo("my_app.CardDeclined", "insufficient funds")


async def test_a_cancelled_run_raises_with_the_reason(client: Client) -> None:
    handle = await start(client)
    await handle.cancel("out of stock")

    with pytest.raises(RunCancelled, match="out of stock") as caught:
        await handle.result()
    assert caught.value.reason == "out of stock"
    assert not isinstance(caught.value, RunTerminated)


async def test_a_terminated_run_says_that_no_code_ran(client: Client) -> None:
    handle = await start(client)
    await handle.terminate()

    with pytest.raises(RunTerminated):
        await handle.result()


async def test_a_result_that_does_not_come_in_time_leaves_the_run_alone(
    port: FakePort, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await start(client)
    before = list(port.runs[handle.id].entries)

    with pytest.raises(ResultTimeout, match=r"run run_1 did not end within 5 s; it goes on"):
        await handle.result(timeout=5)

    assert trio.current_time() == 5
    assert port.runs[handle.id].entries == before
    port.complete(handle.id, {"amount": 7})
    assert await handle.result(timeout=5) == Payment(7)


async def test_a_timeout_of_zero_only_looks(port: FakePort, client: Client) -> None:
    handle = await start(client)

    with pytest.raises(ResultTimeout):
        await handle.result(timeout=0)
    port.complete(handle.id, {"amount": 7})
    assert await handle.result(timeout=0) == Payment(7)


async def test_a_server_that_polls_shortly_is_asked_again_until_the_deadline(
    port: FakePort, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    port.poll_max_s = 30
    handle = await start(client)

    with pytest.raises(ResultTimeout):
        await handle.result(timeout=70)

    assert port.result_polls == 3
    assert trio.current_time() == 70


async def test_a_cancelled_wait_does_not_touch_the_run(port: FakePort, client: Client) -> None:
    handle = await start(client)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.result)
        nursery.start_soon(handle.wait, "completed")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()

    assert await handle.status() is RunStatus.QUEUED
    assert port.open_streams == 0


@pytest.mark.parametrize("timeout", [-1, "5", float("nan")])
async def test_a_wrong_timeout_is_named(client: Client, timeout: Any) -> None:
    handle = await start(client)

    with pytest.raises(InvalidRequest, match="timeout="):
        await handle.result(timeout=timeout)
    with pytest.raises(InvalidRequest, match="timeout="):
        await handle.wait("completed", timeout=timeout)


# --- Waiting for a status -------------------------------------------------------------------------


async def test_waiting_for_a_status_that_it_has_returns_at_once(client: Client) -> None:
    handle = await start(client)

    assert await handle.wait("queued") is RunStatus.QUEUED
    assert await handle.wait([RunStatus.RUNNING, "queued"], timeout=0) is RunStatus.QUEUED


async def test_a_failure_that_is_retried_at_once_is_not_missed(
    port: FakePort, client: Client
) -> None:
    """Who waits for it is told, though the run goes on before they can look."""
    handle = await client.start("greet", name="Ada")
    seen: list[RunStatus] = []

    async def wait() -> None:
        seen.append(await handle.wait("failed"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        port.fail(handle.id, ErrorInfo("ValueError", "x"))
        port.record(handle.id, "run-retried", RunStatus.QUEUED)

    assert seen == ["failed"]


async def test_two_tasks_that_follow_a_run_at_once_both_get_there(port: FakePort) -> None:
    """One follows it while the other is on its way with what the ended run refused."""

    class Slow(FakePort):
        async def control(self, run_id: str, request: ControlRequest) -> None:
            try:
                await super().control(run_id, request)
            except RunEnded:
                await trio.testing.wait_all_tasks_blocked()
                raise

    port = Slow()
    handle = await Client(port).start("greet", name="Ada")
    goes_on = port.continue_as_new(handle.id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(handle.pause)
        await trio.lowlevel.checkpoint()
        nursery.start_soon(handle.info)

    assert [run_id for run_id, _ in port.controls] == [goes_on]


async def test_a_status_that_passes_by_is_not_missed(port: FakePort, client: Client) -> None:
    """The run sleeps and goes on before the waiting task can run even once."""
    handle = await start(client)
    seen: list[RunStatus] = []

    async def wait() -> None:
        seen.append(await handle.wait(["sleeping", "paused"]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        port.record(handle.id, "run-parked", RunStatus.SLEEPING)
        port.record(handle.id, "sleep-ended", RunStatus.QUEUED)

    assert seen == [RunStatus.SLEEPING]
    assert port.open_streams == 0


async def test_waiting_is_refused_once_the_run_has_ended_otherwise(
    port: FakePort, client: Client
) -> None:
    handle = await start(client)

    async def wait() -> None:
        with pytest.raises(RunEnded, match=r"wait until it is sleeping: run run_1 is completed"):
            await handle.wait("sleeping")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        port.complete(handle.id)

    await wait()
    assert await handle.wait(["completed", "failed"]) is RunStatus.COMPLETED


async def test_a_status_that_does_not_come_in_time_is_a_timeout(
    port: FakePort, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await start(client)

    with pytest.raises(ResultTimeout, match=r"did not become sleeping or paused within 5 s"):
        await handle.wait({"paused", "sleeping"}, timeout=5)

    assert trio.current_time() == 5
    assert port.open_streams == 0


@pytest.mark.parametrize("status", ["done", [], 5, [5]])
async def test_what_is_not_a_status_cannot_be_waited_for(client: Client, status: Any) -> None:
    handle = await start(client)

    with pytest.raises(InvalidRequest, match="status="):
        await handle.wait(status)


# --- Runs that go on under another id -------------------------------------------------------------


async def test_a_result_is_that_of_the_run_that_goes_on(port: FakePort, client: Client) -> None:
    handle = await start(client)
    second = port.continue_as_new(handle.id)
    third = port.continue_as_new(second)
    port.complete(third, {"amount": 7})

    assert await handle.result() == Payment(7)
    assert await handle.status() is RunStatus.COMPLETED
    assert (await handle.info()).id == third
    assert (await handle.info(follow=False)).continued_as == second
    assert handle.id == "run_1"


async def test_a_timeout_spans_the_runs_that_continue_each_other(
    port: FakePort, client: Client, autojump_clock: trio.testing.MockClock
) -> None:
    handle = await start(client)

    async def go_on() -> None:
        await trio.sleep(4)
        port.continue_as_new(handle.id)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(go_on)
        with pytest.raises(ResultTimeout):
            await handle.result(timeout=5)

    assert trio.current_time() == 5


async def test_waiting_follows_the_run_that_goes_on(port: FakePort, client: Client) -> None:
    handle = await start(client)
    seen: list[RunStatus] = []

    async def wait() -> None:
        seen.append(await handle.wait("completed"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        second = port.continue_as_new(handle.id)
        await trio.testing.wait_all_tasks_blocked()
        assert seen == [], "the end of a run that goes on is not the end"
        port.complete(second)

    assert seen == [RunStatus.COMPLETED]


async def test_events_and_commands_go_to_the_run_that_goes_on(
    port: FakePort, client: Client
) -> None:
    handle = await start(client)
    second = port.continue_as_new(handle.id)

    await handle.send(ping)
    await handle.pause()

    assert [(run_id, request.event) for run_id, request in port.sent] == [(second, "ping")]
    assert port.controls == [(second, ControlRequest(command=ControlCommand.PAUSE))]


# --- Events ---------------------------------------------------------------------------------------


async def test_an_event_is_sent_in_its_types_form(port: FakePort, client: Client) -> None:
    handle = await start(client)

    receipt = await handle.send(paid, Payment(7), reference_id="txn-1")

    assert (receipt.seq, receipt.duplicate) == (3, False)
    expected = SendRequest(event="paid", data={"amount": 7}, reference_id="txn-1")
    assert port.sent == [(handle.id, expected)]


async def test_an_event_that_is_sent_again_is_acknowledged_and_dropped(
    port: FakePort, client: Client
) -> None:
    handle = await start(client)
    await handle.send(paid, Payment(7), reference_id="txn-1")

    receipt = await handle.send(paid, Payment(7), reference_id="txn-1")

    assert receipt.duplicate
    assert len(port.sent) == 1


async def test_data_that_does_not_fit_is_refused_before_it_is_sent(
    port: FakePort, client: Client
) -> None:
    handle = await start(client)
    send: Any = handle.send

    with pytest.raises(PayloadError, match=r"event 'paid'.*expected .*Payment"):
        await send(paid, {"amount": "7"})
    with pytest.raises(PayloadError, match=r"event 'paid'"):
        await send(paid)
    with pytest.raises(PayloadError, match=r"event 'ping'"):
        await send(ping, 5)
    with pytest.raises(PayloadError, match=r"event 'paid'"):
        await handle.send("paid", "seven")
    assert port.sent == []


async def test_an_event_by_name_is_checked_where_the_workflow_is_known(
    port: FakePort, client: Client
) -> None:
    handle = await start(client)

    await handle.send("paid", Payment(7))
    with pytest.raises(UnknownEvent, match=r"declared: paid, ping"):
        await handle.send("refunded", Payment(7))
    await (await nameless(client, handle)).send("refunded", {"any": [1, 2]})

    assert [request.data for _, request in port.sent] == [{"amount": 7}, {"any": [1, 2]}]


@pytest.mark.parametrize(
    ("event", "options", "complaint"),
    [
        (5, {}, r"event=5 .*not int"),
        ("no spaces", {}, r"event name 'no spaces'"),
        ("paid", {"reference_id": ""}, r"reference_id='' "),
    ],
)
async def test_a_wrong_sending_is_named(
    client: Client, event: Any, options: dict[str, Any], complaint: str
) -> None:
    handle = await nameless(client, await start(client))

    with pytest.raises(InvalidRequest, match=complaint):
        await handle.send(event, None, **options)


async def test_nothing_can_be_sent_to_a_run_that_has_ended(port: FakePort, client: Client) -> None:
    handle = await start(client)
    port.complete(handle.id)

    with pytest.raises(RunEnded):
        await handle.send(ping)


# --- Commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (lambda run: run.cancel("r"), ControlRequest(command=ControlCommand.CANCEL, reason="r")),
        (lambda run: run.terminate(), ControlRequest(command=ControlCommand.TERMINATE)),
        (lambda run: run.pause("r"), ControlRequest(command=ControlCommand.PAUSE, reason="r")),
        (lambda run: run.resume(), ControlRequest(command=ControlCommand.RESUME)),
        (lambda run: run.wake(), ControlRequest(command=ControlCommand.WAKE)),
        (lambda run: run.wake("nap"), ControlRequest(command=ControlCommand.WAKE, sleep="nap")),
        (lambda run: run.requeue(), ControlRequest(command=ControlCommand.REQUEUE)),
    ],
)
async def test_each_command_reaches_the_server(
    port: FakePort,
    client: Client,
    act: Callable[[RunHandle[Any]], Awaitable[None]],
    expected: ControlRequest,
) -> None:
    handle = await start(client)

    await act(handle)

    assert port.controls == [(handle.id, expected)]


async def test_only_a_failed_run_is_sent_round_again(port: FakePort, client: Client) -> None:
    handle = await start(client)

    with pytest.raises(IllegalTransition, match="cannot retry: run run_1 is queued"):
        await handle.retry()
    port.fail(handle.id, ErrorInfo("ValueError", "x"))
    await handle.retry()

    assert await handle.status() is RunStatus.QUEUED


async def test_a_reason_and_a_sleep_are_checked_at_the_call(client: Client) -> None:
    handle = await start(client)
    anything: Any = handle

    with pytest.raises(InvalidRequest, match="reason=5 "):
        await anything.cancel(5)
    with pytest.raises(InvalidRequest, match="length of reason"):
        await handle.cancel("x" * 1_001)
    with pytest.raises(InvalidRequest, match="sleep name 'no spaces'"):
        await handle.wake("no spaces")


async def test_a_run_that_is_gone_is_not_found(port: FakePort, client: Client) -> None:
    handle = await start(client)
    del port.runs[handle.id]

    for call in (handle.status, handle.result, handle.history, handle.cancel):
        with pytest.raises(NotFound, match="run_1"):
            await call()

"""What is tried again, by type and by name, on live errors and on recorded ones; and upcasts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio
from attrs import frozen

import aiki_trio
from aiki_sdk import (
    Event,
    JsonValue,
    RecordedTypeMismatch,
    Retry,
    RunFailed,
    RunStatus,
    TaskFailed,
    current_task,
    task,
    workflow,
)
from aiki_sdk._run import Run
from tests.integration.runtimes import bodies, virtual_runtime

tried: list[Any] = []


@pytest.fixture(autouse=True)
def _nothing_tried() -> None:
    tried.clear()


class CardDeclined(Exception):
    """Somebody's own error."""


class Overdrawn(CardDeclined):
    """One kind of it."""


ERRORS: dict[str, type[Exception]] = {
    "declined": CardDeclined,
    "overdrawn": Overdrawn,
    "timeout": TimeoutError,
    "connection": ConnectionResetError,
}


@task
async def charges(kind: str) -> None:
    tried.append(current_task().attempt)
    raise ERRORS[kind](kind)


MODULE = CardDeclined.__module__


@pytest.mark.parametrize(
    ("retry", "kind", "attempts"),
    [
        (Retry.fixed(3, 0.01, only=(OSError,)), "connection", 3),
        (Retry.fixed(3, 0.01, only=(OSError,)), "declined", 1),
        (Retry.fixed(3, 0.01, never=(CardDeclined,)), "overdrawn", 1),
        (Retry.fixed(3, 0.01, never=(CardDeclined,)), "timeout", 3),
        (Retry.fixed(3, 0.01, never=(f"{MODULE}.CardDeclined",)), "overdrawn", 1),
        (Retry.fixed(3, 0.01, only=("ConnectionResetError",)), "connection", 3),
        (Retry.fixed(3, 0.01, only=(OSError,), never=(TimeoutError,)), "timeout", 1),
    ],
)
async def test_only_and_never_decide_by_type_and_by_name(
    retry: Retry, kind: str, attempts: int, autojump_clock: object
) -> None:
    @workflow(name="charging", version="1.0.0")
    async def charging(run: Run) -> None:
        await charges.options(retry=retry)(kind)

    async with virtual_runtime(charging) as runtime:
        handle = await runtime.client.start(charging)
        with pytest.raises(RunFailed):
            await handle.result()
        assert tried == list(range(1, attempts + 1))


@pytest.mark.parametrize(
    ("retry", "kind", "attempts"),
    [
        (Retry.fixed(3, 10, only=(ConnectionResetError,)), "connection", 3),
        (Retry.fixed(3, 10, only=(ConnectionResetError,)), "declined", 1),
        (Retry.fixed(3, 10, never=(f"{MODULE}.Overdrawn",)), "overdrawn", 1),
        (Retry.fixed(3, 10, never=(Overdrawn,)), "declined", 3),
        (Retry.fixed(3, 10, only=(TaskFailed,)), "connection", 3),
    ],
)
async def test_a_runs_own_policy_looks_at_the_recorded_error_of_the_task(
    retry: Retry, kind: str, attempts: int, autojump_clock: object
) -> None:
    """The run's policy travelled as JSON, and the error comes back from the journal as a name."""

    @workflow(name="charging-run", version="1.0.0", retry=retry)
    async def charging(run: Run) -> None:
        await charges(kind)

    async with virtual_runtime(charging) as runtime:
        handle = await runtime.client.start(charging)
        with pytest.raises(RunFailed):
            await handle.result()
        assert len(tried) == attempts
        assert len(await bodies(handle, "run-attempt-failed")) == attempts - 1


@pytest.mark.parametrize("delay_s", [0.05, 120])
async def test_a_task_may_choose_its_next_delay(delay_s: float, autojump_clock: object) -> None:
    @task(retry=Retry.fixed(2, 1_000))
    async def busy() -> float:
        if current_task().attempt == 1:
            tried.append(trio.current_time())
            raise Retry.after(delay_s)
        return trio.current_time() - float(tried[0])

    @workflow(name="coming-again", version="1.0.0")
    async def coming_again(run: Run) -> float:
        return await busy()

    async with virtual_runtime(coming_again) as runtime:
        handle = await runtime.client.start(coming_again)
        assert await handle.result() == pytest.approx(delay_s, abs=0.02)


async def test_choosing_the_delay_does_not_buy_more_attempts(autojump_clock: object) -> None:
    @task(retry=Retry.fixed(2, 1))
    async def always_busy() -> None:
        tried.append(1)
        raise Retry.after(1)

    @workflow(name="always-busy", version="1.0.0")
    async def busy_run(run: Run) -> None:
        await always_busy()

    async with virtual_runtime(busy_run) as runtime:
        with pytest.raises(RunFailed, match="RetryAfter"):
            await (await runtime.client.start(busy_run)).result()
    assert len(tried) == 2


async def test_options_hold_for_one_call_and_are_no_part_of_its_address(
    autojump_clock: object,
) -> None:
    @task(timeout=5)
    async def naps(seconds: float) -> float:
        await trio.sleep(seconds)
        return seconds

    @workflow(name="napping", version="1.0.0")
    async def napping(run: Run) -> list[float]:
        first = await naps.options(timeout=None)(60)
        with pytest.raises(TaskFailed, match="timeout of 1 s"):
            await naps.options(timeout=1)(2)
        return [first, await naps(2)]

    async with virtual_runtime(napping) as runtime:
        handle = await runtime.client.start(napping)
        assert await handle.result() == [60, 2]
        calls = [
            body["call"]
            for kind in ("task-failed", "task-succeeded")
            for body in await bodies(handle, kind)
        ]
        assert len({str(call["address"]) for call in calls if isinstance(call, dict)}) == 2


# --- Recorded results of another time -------------------------------------------------------------

go = Event("go")


@frozen
class Receipt:
    """What a charge returns today; it was a plain string once."""

    id: str
    cents: int


def old_workflow() -> Any:
    @task(name="charge")
    async def charge() -> str:
        return "ch_1"

    @workflow(name="upcasting", version="1.0.0", events=[go])
    async def before(run: Run) -> str:
        receipt = await charge()
        await run.wait(go)
        return receipt

    return before


def new_workflow(*, upcast: bool) -> Any:
    def from_text(recorded: JsonValue) -> JsonValue:
        return {"id": recorded, "cents": 0} if isinstance(recorded, str) else recorded

    @task(name="charge", upcast=from_text if upcast else None)
    async def charge() -> Receipt:
        raise AssertionError("it is recorded")

    @workflow(name="upcasting", version="1.0.0", events=[go])
    async def after(run: Run) -> str:
        receipt = await charge()
        await run.wait(go)
        return f"{receipt.id} {receipt.cents}"

    return after


@pytest.mark.parametrize("upcast", [True, False])
async def test_a_result_recorded_under_another_type_is_cast_or_refused_by_name(
    upcast: bool, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/runs.db"
    before, after = old_workflow(), new_workflow(upcast=upcast)
    with trio.fail_after(20):
        async with aiki_trio.open_runtime(url, workflows=[before]) as runtime:
            handle = await runtime.client.start(before)
            await handle.wait(RunStatus.AWAITING_EVENT)
            (seq,) = [e.seq for e in await handle.history() if e.kind == "task-succeeded"]
        async with aiki_trio.open_runtime(url, workflows=[after]) as runtime:
            again = await runtime.client.get(handle.id, workflow=after)
            await again.send(go)
            if upcast:
                assert await again.result() == "ch_1 0"
                return
            with pytest.raises(RunFailed) as failed:
                await again.result()
    error = failed.value.error
    assert error.code == RecordedTypeMismatch.code
    for word in ("task 'charge'", f"entry {seq}", "upcast", "expected"):
        assert word in error.message, error.message


def test_the_entry_is_kept_apart_from_the_rest_of_the_error() -> None:
    mismatch = RecordedTypeMismatch("result of task 'x'", "result.id", "expected a string")
    assert mismatch.seq is None
    named = mismatch.at_entry(7)
    assert (named.seq, named.path) == (7, "result.id")
    assert "(entry 7)" in named.message
